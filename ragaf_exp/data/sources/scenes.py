"""Embedded data: procedural shape scenes with captions, caption spans, exact masks and hand-drawn strokes.

Geometry is drawn in 64ths of the image's shorter side, so a scene is the same scene at every size of one aspect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item
from ragaf_exp.data.sources import render
from ragaf_exp.data.sources.captions import RELATIONS, annotate, object_phrase, relation_caption, relations_along
from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS, BACKGROUND_NAMES, OBJECT_NAMES
from ragaf_exp.data.sources.shapes import SHAPE_NAMES, SHAPES, pose
from ragaf_exp.data.split import SPLITS, check_counts, check_size, split_id

FILLS = ("hollow", "striped", "dotted", "plain")
FILL_BOUNDS = (0.2, 0.35, 0.5)  # cumulative shares of the first three; hollow ones that do not fit become plain
HELDOUT = {  # one colour for each shape, each colour once: never in train or val
    "circle": "blue",
    "square": "orange",
    "triangle": "pink",
    "star": "green",
    "heart": "cyan",
    "diamond": "red",
    "cross": "yellow",
    "moon": "purple",
}
# bounding radii by number of objects
RADII = {1: (11.0, 15.0), 2: (10.5, 13.0), 3: (9.0, 12.0), 4: (8.0, 10.5), 5: (7.0, 9.0)}
RELATION_SHARES = dict(zip(RELATIONS, (0.5, 0.15, 0.2, 0.15), strict=True))
RINGS = {1: 1, 2: 2, 3: 3, 4: 2, 5: 1}  # most hollow objects by number of objects: they are large, more would not fit
GAP, MARGIN, STEP = 2.5, 1.5, 4.0  # between objects, to the frame, between centres along the chain; in units
LARGEST = 0.95  # diameter relative to the side that leaves the margin
PAIRS = {count: np.triu_indices(count, 1) for count in RADII}
TRIES = {1: 1, 2: 8, 3: 24, 4: 64, 5: 256}  # layouts tried at once, by number of objects


@dataclass(frozen=True)
class Spec:
    """An object before it is placed."""

    shape: str
    colour: str
    fill: str
    radius: float


class Scenes:
    """Procedural shape scenes; every item is a pure function of (seed, split, index).

    Args:
        size: Height of the images in pixels, a multiple of 4.
        seed: Seed of all scenes.
        train: Number of training items.
        val: Number of validation items.
        test: Number of test items.
        min_objects: Smallest number of objects in a scene.
        max_objects: Largest number of objects in a scene.
        heldout_share: Probability that an object of a test scene is one of the held-out colour-shape pairs.
        repeat_share: Share of val and test scenes in which a shape may repeat, so that relations are needed to
            distinguish the objects.
        train_repeat_share: Likewise for train; higher, since relations are learnt last.
        width: Width of the images in pixels, a multiple of 4; 0 = the height.
        scale: Least and largest diameter of an object relative to the side; several objects are at most as large as
            they fit. Empty for the usual sizes by number of objects.

    Raises:
        UserError: A value is out of range.
    """

    def __init__(
        self,
        size: limits.Size = 64,
        seed: limits.Seed = 0,
        train: limits.Items = 6000,
        val: limits.Items = 256,
        test: limits.Items = 256,
        min_objects: limits.Objects = 2,
        max_objects: limits.Objects = 5,
        heldout_share: limits.Share = 0.35,
        repeat_share: limits.Share = 0.35,
        train_repeat_share: limits.Share = 1.0,
        width: limits.SizeOrNone = 0,
        scale: limits.ObjectScale = (),
    ) -> None:
        check_size(size)
        check_size(width or size, "width")
        check_counts(seed=seed, train=train, val=val, test=test)
        if not 1 <= min_objects <= max_objects:
            raise UserError(f"data.min_objects={min_objects}: must be from 1 to data.max_objects={max_objects}")
        if max_objects > max(RADII):
            raise UserError(f"data.max_objects={max_objects}: must be at most {max(RADII)}")
        if not 0 <= heldout_share <= 1:
            raise UserError(f"data.heldout_share={heldout_share}: must be from 0 to 1; take 0.35")
        for key, share in {"repeat_share": repeat_share, "train_repeat_share": train_repeat_share}.items():
            if not 0 <= share <= 1:
                raise UserError(f"data.{key}={share}: must be from 0 to 1")
        self.size, self.seed = size, seed
        self.lengths = dict(zip(SPLITS, (train, val, test), strict=True))
        self.min_objects, self.max_objects = min_objects, max_objects
        self.heldout_share = heldout_share
        if len(scale) == 1 or (scale and not scale[0] < scale[1] <= LARGEST):
            raise UserError(f"data.scale={list(scale)}: must be two increasing numbers up to {LARGEST}, as [0.2,0.95]")
        self.scale = tuple(scale)
        self.repeat_shares = {"train": train_repeat_share, "val": repeat_share, "test": repeat_share}
        self._grid = render.grid_for(size, width or size)

    def split(self, name: str) -> Sequence[Item]:
        """Return the items of "train", "val" or "test". Raises UserError for another name."""
        split_id(name)
        return LazyItems(partial(self._make, name), self.lengths[name], partial(self._caption, name))

    def _make(self, split: str, index: int) -> Item:
        rng, specs, centres, background, (caption, spans) = self._layout(split, index)
        image, drawing, object_map = self._draw(rng, specs, centres, background)
        objects = annotate([(spec.shape, spec.colour, spec.fill) for spec in specs], spans, HELDOUT)
        return Item(f"scenes{self.seed}-{split}-{index}", image, caption, drawing, objects, object_map)

    def _caption(self, split: str, index: int) -> str:
        return self._layout(split, index)[-1][0]

    def _layout(self, split: str, index: int) -> tuple:
        """Sample a scene: generator, objects, their centres (N,2) in units, background's name, caption with its spans."""
        rng = np.random.default_rng([self.seed, split_id(split), index])
        count = int(rng.integers(self.min_objects, self.max_objects + 1))
        specs = self.specs(rng, count, self.heldout_share if split == "test" else 0.0, self.repeat_shares[split])
        centres = place(rng, np.array([spec.radius for spec in specs]), self._grid.extent)
        relation = pick_relation(rng, centres)
        axis, sign = RELATIONS[relation]
        order = np.argsort(sign * centres[:, axis])
        specs, centres = [specs[i] for i in order], centres[order]
        background = BACKGROUND_NAMES[int(rng.integers(len(BACKGROUND_NAMES)))]
        phrases = [object_phrase(spec.shape, spec.colour, spec.fill) for spec in specs]
        return rng, specs, centres, background, relation_caption(phrases, relation, background, int(rng.integers(3)))

    def specs(self, rng: np.random.Generator, count: int, heldout: float, repeat_share: float) -> list[Spec]:
        """Sample distinct objects: two of the same shape differ in colour or fill.

        Args:
            rng: Random generator.
            count: Number of objects.
            heldout: Probability that an object is one of the held-out colour-shape pairs.
            repeat_share: Probability that a shape may repeat.

        Returns:
            The objects.
        """
        specs: list[Spec] = []
        low, high = self._radii(count)
        rings = RINGS[count]
        repeats = rng.random() < repeat_share
        while len(specs) < count:
            chance, turn, radius, which, tint = rng.random(5).tolist()
            shape = SHAPE_NAMES[int(which * len(SHAPE_NAMES))]
            colours = [name for name in OBJECT_NAMES if name != HELDOUT[shape]]
            colour = HELDOUT[shape] if chance < heldout else colours[int(tint * len(colours))]
            least = SHAPES[shape].hollow_radius
            hollow_fits = least <= high + 1.5 and sum(spec.fill == "hollow" for spec in specs) < rings
            fill = FILLS[int(np.searchsorted(FILL_BOUNDS, turn, side="right"))]
            fill = "plain" if fill == "hollow" and not hollow_fits else fill
            if any((spec.shape, spec.colour, spec.fill) == (shape, colour, fill) for spec in specs):
                continue
            if not repeats and any(spec.shape == shape for spec in specs):
                continue
            radius = low + (high - low) * radius
            specs.append(Spec(shape, colour, fill, max(radius, least) if fill == "hollow" else radius))
        return specs

    def _radii(self, count: int) -> tuple[float, float]:
        """Return the range of bounding radii in units, by the number of objects."""
        if not self.scale:
            return RADII[count]
        low, high = (share * render.UNITS / 2 for share in self.scale)
        high = high if count == 1 else min(high, RADII[count][1])
        return min(low, high), high

    def _draw(
        self, rng: np.random.Generator, specs: list[Spec], centres: np.ndarray, background: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Render image (H,W,3) uint8, drawing (H,W) float32 in [0,1] and object map (H,W) uint8, of the same outlines."""
        grid, shape = self._grid, self._grid.shape
        canvas = np.full((*shape, 3), BACKGROUND_COLOURS[background], np.float32)
        lines = np.zeros((shape[0] * grid.supersample, shape[1] * grid.supersample), np.uint8)
        object_map = np.zeros(shape, np.uint8)
        for label, (spec, centre) in enumerate(zip(specs, centres, strict=True), 1):
            outline = (pose(SHAPES[spec.shape], rng, spec.radius) + centre).astype(np.float32)
            contours = [outline] + ([render.hole_of(outline, grid)] if spec.fill == "hollow" else [])
            box, alpha = render.coverage(contours, grid)
            render.paint(canvas, alpha, box, render.object_colour(spec.colour, spec.fill, box, grid, rng))
            object_map[box][alpha >= 0.5] = label
            # a ring's wall is hardly wider than a gap: with a gap it would not be an enclosed area
            gapped = rng.random() < render.GAP_SHARE and spec.fill != "hollow"
            gap = render.GAP[0] + (render.GAP[1] - render.GAP[0]) * rng.random()
            for contour in contours:
                render.stroke(lines, contour, grid, rng, gap if gapped else 0.0)
        return np.rint(canvas).astype(np.uint8), grid.average(lines), object_map


def _spread(centres: np.ndarray) -> np.ndarray:
    """Compute the smallest step between neighbours in sorted order along x and y: (2, N, ...) to (2, ...)."""
    return np.diff(np.sort(centres, axis=1), axis=1).min(1, initial=render.UNITS)


def place(
    rng: np.random.Generator, radii: np.ndarray, extent: tuple[float, float] = (render.UNITS, render.UNITS)
) -> np.ndarray:
    """Sample centres of discs that keep GAP and MARGIN and form a chain along x or y.

    Args:
        rng: Random generator.
        radii: (N,) in units.
        extent: Width and height of the image in units.

    Returns:
        (N, 2) centres in units.
    """
    count, span = len(radii), np.array(extent)[:, None, None]
    first, second = PAIRS[count]
    reach = radii[:, None] + MARGIN
    apart = (radii[first] + radii[second] + GAP)[:, None] ** 2
    while True:
        centres = reach + rng.random((2, count, TRIES[count])) * (span - 2 * reach)
        steps = centres[:, first] - centres[:, second]
        steps *= steps
        good = np.flatnonzero((steps[0] + steps[1] >= apart).all(0))
        good = good[(_spread(centres[:, :, good]) >= STEP).any(0)]
        if len(good):
            return centres[:, :, good[0]].T


def pick_relation(rng: np.random.Generator, centres: np.ndarray) -> str:
    """Sample a relation by RELATION_SHARES, along an axis on which all neighbours are STEP apart."""
    spread = _spread(centres.T)
    names = relations_along(spread, STEP)
    shares = np.cumsum([RELATION_SHARES[name] for name in names])
    return names[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]
