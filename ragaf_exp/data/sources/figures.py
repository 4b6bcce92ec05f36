"""Embedded data of the demo: drawings of shapes and of figures with parts, from tiny to filling the page.

Unlike `Scenes`, figures have named parts of other colours, captions use synonyms and short forms, and outlines are
drawn with thin and with thick pens. Geometry is in 64ths of the image's side, so a scene is the same at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item, SceneObject
from ragaf_exp.data.sources import render
from ragaf_exp.data.sources.captions import RELATIONS, relations_along
from ragaf_exp.data.sources.figure_captions import (
    SHORT_SHARE,
    Painted,
    figure_phrase,
    scene_caption,
    short_caption,
)
from ragaf_exp.data.sources.figure_parts import COMPOSITE, NESTING, PLAIN, Figure, Outline, inside
from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS, BACKGROUND_NAMES, NEUTRAL_COLOURS, OBJECT_NAMES, WIDE_COLOURS
from ragaf_exp.data.sources.shapes import turned, wobble
from ragaf_exp.data.split import SPLITS, check_counts, check_size, split_id

COUNT_SHARES = (0.3, 0.22, 0.16, 0.12, 0.08, 0.05, 0.04, 0.03)  # of scenes with 1, 2, ... objects
LARGEST = {1: 0.95, 2: 0.6, 3: 0.48, 4: 0.4}  # diameter relative to the side, by number of objects; more: LEAST_ROOM
LEAST_ROOM, SMALLEST = 0.3, 0.1
ROOM_FOR_PARTS, ROOM_TO_NEST = 0.36, 0.26  # least diameter of figures with parts, and of nested shapes
NEST_SHARE, COMPOSITE_SHARE = 0.2, 0.6
NEUTRAL_SHARE = 0.2  # of colours that are black, brown or white
ONE_COLOUR_SHARE, ALL_PARTS_SHARE = 0.35, 0.3  # of figures with parts: one colour, and every part named
FILLS, FILL_SHARES = ("plain", "striped", "dotted"), (0.76, 0.12, 0.12)
PEN = (0.45, 1.7)  # widths of pens, relative to those of `Scenes`
WHITE_SHARE = 0.6  # of backgrounds
GAP, MARGIN, STEP = 2.0, 1.0, 4.0  # between objects, to the frame, between centres along a relation; in units
TRIES, SHRINK = 60, 0.9


@dataclass(frozen=True)
class Placed:
    """A figure with its colours, before it is drawn."""

    name: str
    figure: Figure
    colours: tuple[str, ...]  # of its parts
    named: tuple[int, ...]  # parts that the caption names
    body: str  # colour of the others; "" if all are named
    fill: str
    radius: float  # in units
    centre: tuple[float, float] = (0.0, 0.0)


class Figures:
    """Drawings of 1 to 8 figures with parts; every item is a pure function of (seed, split, index).

    Args:
        size: Side of the square images in pixels, a multiple of 4.
        seed: Seed of all drawings.
        train: Number of training items.
        val: Number of validation items.
        test: Number of test items.
        max_objects: Largest number of figures in a drawing, 1 to 8.

    Raises:
        UserError: A value is out of range.
    """

    def __init__(
        self, size: limits.Size = 128, seed: limits.Seed = 0, train: limits.Items = 40000, val: limits.Items = 256,
        test: limits.Items = 256, max_objects: limits.Objects = 8,
    ) -> None:  # fmt: skip
        check_size(size)
        check_counts(seed=seed, train=train, val=val, test=test)
        if not 1 <= max_objects <= len(COUNT_SHARES):
            raise UserError(f"data.max_objects={max_objects}: must be from 1 to {len(COUNT_SHARES)}")
        self.size, self.seed, self.max_objects = size, seed, max_objects
        self.lengths = dict(zip(SPLITS, (train, val, test), strict=True))
        self._grid = render.grid_for(size, size)

    def split(self, name: str) -> Sequence[Item]:
        """Return the items of "train", "val" or "test". Raises UserError for another name."""
        split_id(name)
        return LazyItems(partial(self._item, name), self.lengths[name], partial(self._caption, name))

    def _caption(self, split: str, index: int) -> str:
        return self._layout(split, index)[-1][0]

    def _item(self, split: str, index: int) -> Item:
        rng, placed, background, (caption, spans) = self._layout(split, index)
        image, drawing, object_map = self._draw(rng, placed, background)
        key = f"figures{self.seed}-{split}-{index}"
        return Item(key, image, caption, drawing, _objects(placed, spans, object_map), object_map)

    def _layout(self, split: str, index: int) -> tuple:
        """Sample a drawing: generator, figures in the caption's order, background's name, caption with its spans."""
        rng = np.random.default_rng([self.seed, split_id(split), index])
        shares = np.array(COUNT_SHARES[: self.max_objects])
        count = int(rng.choice(len(shares), p=shares / shares.sum())) + 1
        background = "white" if rng.random() < WHITE_SHARE else BACKGROUND_NAMES[int(rng.integers(len(BACKGROUND_NAMES)))]
        radii, centres = place(rng, _radii(rng, count))
        relation, order = _order(rng, centres)
        placed = [_sample(rng, radius, background) for radius in radii]
        placed = [replace(placed[i], centre=tuple(centres[i].tolist())) for i in order]
        single = count == 1 and len(set(placed[0].colours)) == 1 and placed[0].fill == "plain" and background == "white"
        if single and rng.random() < SHORT_SHARE:
            return rng, placed, background, short_caption(rng, placed[0].colours[0])
        phrases = [figure_phrase(rng, *_words(one)) for one in placed]
        return rng, placed, background, scene_caption(rng, phrases, relation, background)

    def _draw(
        self, rng: np.random.Generator, placed: Sequence[Placed], background: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Render image (H,W,3) uint8, drawing (H,W) float32 in [0,1] and object map (H,W) uint8, of the same outlines."""
        grid = self._grid
        canvas = np.full((*grid.shape, 3), BACKGROUND_COLOURS[background], np.float32)
        lines = np.zeros((grid.shape[0] * grid.supersample, grid.shape[1] * grid.supersample), np.uint8)
        object_map = np.zeros(grid.shape, np.uint8)
        pen, label = rng.uniform(*PEN), 0
        for one in placed:
            move = _Pose.sample(rng, one)
            body, label = label + 1 if one.body else 0, label + (1 if one.body else 0)
            for index, part in enumerate(one.figure.parts):
                label += index in one.named
                own = label if index in one.named else body
                for outline in part.outlines:
                    contour = move(outline)
                    box, alpha = render.coverage([contour], grid)
                    render.paint(canvas, alpha, box, _colour(one, index, box, grid, rng))
                    object_map[box][alpha >= 0.5] = own
                    # a line behind a part in front is hidden
                    cv2.fillPoly(lines, [grid.fixed(contour)], 0, shift=4)
                    gap = rng.uniform(*render.GAP) if rng.random() < render.GAP_SHARE else 0.0
                    render.stroke(lines, contour, grid, rng, gap, pen)
        return np.rint(canvas).astype(np.uint8), grid.average(lines), object_map


@dataclass(frozen=True)
class _Pose:
    """Turn, mirror, wobble and place of a figure, the same for all of its parts."""

    matrix: np.ndarray  # (2,2)
    centre: np.ndarray  # (2,)
    factors: np.ndarray  # (POINTS,) around 1

    @classmethod
    def sample(cls, rng: np.random.Generator, one: Placed) -> _Pose:
        matrix = one.radius * turned(rng, one.figure.turn)
        single = len(one.figure.parts) == 1
        factors = wobble(rng, 0.02) if single else np.ones(1)  # parts that meet must stay together
        return cls(matrix / factors.max(), np.array(one.centre, np.float32), factors)

    def __call__(self, outline: Outline) -> np.ndarray:
        """Move an outline (POINTS,2) to the picture, in units."""
        return ((outline @ self.matrix) * self.factors[:, None] + self.centre).astype(np.float32)


def _radii(rng: np.random.Generator, count: int) -> np.ndarray:
    """Sample the radii of a scene's figures in units, in descending order."""
    most = LARGEST.get(count, LEAST_ROOM)
    shares = SMALLEST + (most - SMALLEST) * rng.beta(2.0, 1.2, count)
    return np.sort(shares * render.UNITS / 2)[::-1]


def place(rng: np.random.Generator, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place discs that do not overlap; they shrink until they fit.

    Args:
        rng: Random generator.
        radii: (N,) in units, in descending order.

    Returns:
        Their radii (N,) and centres (N,2) in units.
    """
    while True:
        centres: list[np.ndarray] = []
        for radius in radii:
            spots = radius + MARGIN + rng.random((TRIES, 2)) * (render.UNITS - 2 * (radius + MARGIN))
            free = np.ones(TRIES, bool)
            for other, centre in zip(radii, centres, strict=False):
                free &= np.linalg.norm(spots - centre, axis=1) >= radius + other + GAP
            if not free.any():
                break
            centres.append(spots[free.argmax()])
        if len(centres) == len(radii):
            return radii, np.array(centres)
        radii = radii * SHRINK


def _order(rng: np.random.Generator, centres: np.ndarray) -> tuple[str, np.ndarray]:
    """Choose a relation that holds, or "" for a list from left to right, and the order of the figures."""
    if len(centres) > 1:
        steps = np.diff(np.sort(centres, axis=0), axis=0).min(0)
        names = relations_along(steps, STEP)
        if names and rng.random() < 0.6:
            relation = names[int(rng.integers(len(names)))]
            axis, sign = RELATIONS[relation]
            return relation, np.argsort(sign * centres[:, axis])
    return "", np.argsort(centres[:, 0])


def _sample(rng: np.random.Generator, radius: float, background: str) -> Placed:
    """Sample a figure and its colours."""
    share = 2 * radius / render.UNITS
    kind = rng.random()
    if share >= ROOM_FOR_PARTS and kind < COMPOSITE_SHARE:
        name = str(rng.choice(list(COMPOSITE)))
        return _coloured(rng, name, COMPOSITE[name], radius, background)
    if share >= ROOM_TO_NEST and kind > 1 - NEST_SHARE:
        outer, inner = str(rng.choice(NESTING)), str(rng.choice(list(PLAIN)))
        return _coloured(rng, outer, inside(outer, inner), radius, background)
    name, fill = str(rng.choice(list(PLAIN))), str(rng.choice(FILLS, p=FILL_SHARES))
    (colour,) = _colours(rng, 1, background)
    fill = "plain" if colour in NEUTRAL_COLOURS or share < ROOM_TO_NEST else fill
    return Placed(name, PLAIN[name], (colour,), (), colour, fill, radius)


def _coloured(rng: np.random.Generator, name: str, figure: Figure, radius: float, background: str) -> Placed:
    """Colour a figure with parts: in one colour, in a body's colour and that of some parts, or in one colour per part."""
    count, kind = len(figure.parts), rng.random()
    nested = not figure.parts[0].name
    if kind < ONE_COLOUR_SHARE and not nested:
        (body,) = _colours(rng, 1, background)
        return Placed(name, figure, (body,) * count, (), body, "plain", radius)
    if kind > 1 - ALL_PARTS_SHARE and count <= 3 and not nested:
        return Placed(name, figure, tuple(_colours(rng, count, background)), tuple(range(count)), "", "plain", radius)
    body, *others = _colours(rng, 3, background)
    some = [1] if nested else sorted(rng.permutation(count)[: int(rng.integers(1, min(count - 1, 2) + 1))].tolist())
    painted = dict(zip(some, others, strict=False))
    colours = tuple(painted.get(i, body) for i in range(count))
    return Placed(name, figure, colours, tuple(some), body, "plain", radius)


def _colours(rng: np.random.Generator, count: int, background: str) -> list[str]:
    """Sample distinct colours; nothing is white where the background is pale."""
    neutral = [name for name in NEUTRAL_COLOURS if name != "white" or background in ("grey", "lavender")]
    chosen: list[str] = []
    while len(chosen) < count:
        names = neutral if rng.random() < NEUTRAL_SHARE else OBJECT_NAMES
        name = str(names[int(rng.integers(len(names)))])
        if name not in chosen:
            chosen.append(name)
    return chosen


def _words(one: Placed) -> tuple[Painted, list[Painted]]:
    """List the things that a caption names of a figure: its body, and parts."""
    parts = [Painted(one.figure.parts[i].name, one.colours[i]) for i in one.named]
    return Painted(one.name, one.body, one.fill), parts


def _colour(one: Placed, part: int, box: tuple[slice, slice], grid: render.Grid, rng: np.random.Generator) -> np.ndarray:
    """Return the colour (3,) or texture (h,w,3) of a part."""
    if one.fill != "plain":
        return render.object_colour(one.colours[part], one.fill, box, grid, rng)
    return np.array(WIDE_COLOURS[one.colours[part]], np.float32)


def _objects(
    placed: Sequence[Placed], spans: Sequence[tuple[tuple[int, int], ...]], object_map: np.ndarray
) -> tuple[SceneObject, ...]:
    """Annotate bodies and named parts, in the order of their labels; those that nothing shows of are left out."""
    shapes = [one.name for one in placed]
    things: list[tuple[str, str, str, tuple[int, int], bool]] = []
    for one, own in zip(placed, spans, strict=True):
        repeated = shapes.count(one.name) > 1
        if one.body:
            things.append((one.name, one.body, one.fill, own[0], repeated))
        for index, span in zip(one.named, own[1:], strict=True):
            things.append((one.figure.parts[index].name, one.colours[index], "plain", span, repeated))
    shown = set(np.unique(object_map).tolist())
    return tuple(SceneObject(label, shape, colour, fill, span, repeated=repeated)
                 for label, (shape, colour, fill, span, repeated) in enumerate(things, 1) if label in shown)  # fmt: skip
