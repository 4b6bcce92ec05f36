"""Embedded data in which a region must know its rank among the others: all objects of a scene have the same shape.

A caption names them by relation alone ("the second star from the left is red"), so colours can only be bound by
comparing regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item
from ragaf_exp.data.sources import relation_captions, render
from ragaf_exp.data.sources.captions import RELATIONS, annotate, relations_along
from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS, BACKGROUND_NAMES, OBJECT_NAMES
from ragaf_exp.data.sources.scenes import RADII, STEP, place
from ragaf_exp.data.sources.shapes import SHAPE_NAMES, SHAPES, pose
from ragaf_exp.data.split import SPLITS, check_counts, check_size, split_id

KINDS = tuple(relation_captions.FORMS)
COUNTS = {"chain": (2, 5), "between": (3, 3), "ordinal": (2, 5), "inside": (2, 3), "size": (2, 3)}
NESTED_SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond")  # a smaller copy lies inside a larger one
NESTED_RADII = {2: (24.0, 11.0), 3: (28.0, 16.5, 7.0)}  # in units, from the outermost; ink needs room between them
SIZE_RADII = {2: (7.0, 13.0), 3: (5.5, 8.5, 12.0)}  # in ascending order, apart by more than a hand's error


@dataclass(frozen=True)
class _Layout:
    """A scene before it is drawn; objects are in the order in which they are painted."""

    shape: str
    colours: tuple[str, ...]
    radii: tuple[float, ...]
    centres: np.ndarray  # (N,2) in units
    background: str
    relation: str  # as in reports
    caption: relation_captions.Caption  # its objects are indices of `colours`


class Relations:
    """Scenes of 2 to 5 equal shapes; every item is a pure function of (seed, split, index).

    Args:
        size: Side of the square images in pixels, a multiple of 4.
        seed: Seed of all scenes.
        train: Number of training items.
        val: Number of validation items.
        test: Number of test items.
        kinds: Relations to sample from, each as likely as the others: chain, between, ordinal, inside, size.

    Raises:
        UserError: A value is out of range.
    """

    def __init__(
        self, size: limits.Size = 64, seed: limits.Seed = 0, train: limits.Items = 6000, val: limits.Items = 256,
        test: limits.Items = 256, kinds: limits.Flags = KINDS,
    ) -> None:  # fmt: skip
        check_size(size)
        check_counts(seed=seed, train=train, val=val, test=test)
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise UserError(f"data.kinds={unknown[0]}: unknown; take some of {', '.join(KINDS)}")
        if not kinds:
            raise UserError(f"data.kinds=[]: give at least one of {', '.join(KINDS)}")
        self.size, self.seed, self.kinds = size, seed, tuple(kinds)
        self.lengths = dict(zip(SPLITS, (train, val, test), strict=True))
        self._grid = render.grid_for(size, size)

    def split(self, name: str) -> Sequence[Item]:
        """Return the items of "train", "val" or "test". Raises UserError for another name."""
        split_id(name)
        return LazyItems(partial(self._item, name), self.lengths[name], partial(self._caption, name))

    def _caption(self, split: str, index: int) -> str:
        return self._layout(split, index)[1].caption[0]

    def _item(self, split: str, index: int) -> Item:
        rng, layout = self._layout(split, index)
        text, spans, order = layout.caption
        labels = {which: label for label, which in enumerate(order, 1)}
        image, drawing, object_map = self._draw(rng, layout, labels)
        things = annotate([(layout.shape, layout.colours[i], "plain") for i in order], spans)
        objects = tuple(replace(thing, relation=layout.relation) for thing in things)
        return Item(f"relations{self.seed}-{split}-{index}", image, text, drawing, objects, object_map)

    def _layout(self, split: str, index: int) -> tuple[np.random.Generator, _Layout]:
        rng = np.random.default_rng([self.seed, split_id(split), index])
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        count = int(rng.integers(COUNTS[kind][0], COUNTS[kind][1] + 1))
        colours = tuple(str(name) for name in rng.permutation(OBJECT_NAMES)[:count])
        background = BACKGROUND_NAMES[int(rng.integers(len(BACKGROUND_NAMES)))]
        shape = str(rng.choice(NESTED_SHAPES if kind == "inside" else SHAPE_NAMES))
        radii, centres, relation = _arranged(rng, kind, count)
        caption = relation_captions.FORMS[kind](rng, shape, _named(colours, kind), relation)
        if kind == "inside":  # named from the innermost, painted from the outermost
            text, spans, order = caption
            caption = text, spans, [count - 1 - i for i in order]
        caption = relation_captions.on_background(caption, background)
        name = relation_captions.relation_of(kind, relation)
        return rng, _Layout(shape, colours, tuple(radii.tolist()), centres, background, name, caption)

    def _draw(
        self, rng: np.random.Generator, layout: _Layout, labels: dict[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Render image (H,W,3) uint8, drawing (H,W) float32 in [0,1] and object map (H,W) uint8, of the same outlines."""
        grid = self._grid
        canvas = np.full((*grid.shape, 3), BACKGROUND_COLOURS[layout.background], np.float32)
        lines = np.zeros((grid.shape[0] * grid.supersample, grid.shape[1] * grid.supersample), np.uint8)
        object_map = np.zeros(grid.shape, np.uint8)
        state = rng.bit_generator.state
        for index, (colour, radius, centre) in enumerate(zip(layout.colours, layout.radii, layout.centres, strict=True)):
            if layout.relation == "inside":  # the same turn for all, so that none crosses another
                rng.bit_generator.state = state
            outline = (pose(SHAPES[layout.shape], rng, radius) + centre).astype(np.float32)
            box, alpha = render.coverage([outline], grid)
            render.paint(canvas, alpha, box, render.object_colour(colour, "plain", box, grid, rng))
            object_map[box][alpha >= 0.5] = labels[index]
            render.stroke(lines, outline, grid, rng, 0.0)
        return np.rint(canvas).astype(np.uint8), grid.average(lines), object_map


def _named(colours: tuple[str, ...], kind: str) -> tuple[str, ...]:
    """The colours in the order that the caption's form expects."""
    return colours[::-1] if kind == "inside" else colours


def _arranged(rng: np.random.Generator, kind: str, count: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Sample radii (N,), centres (N,2) in units, and the relation along an axis; objects are in its order.

    Sizes are in ascending order, nested objects from the outermost.
    """
    if kind == "inside":
        spread = render.UNITS / 2 - NESTED_RADII[count][0] - 1.5
        centre = render.UNITS / 2 + rng.uniform(-spread, spread, 2)
        return np.array(NESTED_RADII[count]), np.tile(centre, (count, 1)), ""
    if kind == "size":
        radii = np.array(SIZE_RADII[count]) * rng.uniform(0.93, 1.07, count)
        return radii, place(rng, radii), ""
    low, high = RADII[count]
    radii = rng.uniform(low, high, count)
    centres = place(rng, radii)  # a step apart along one axis at least
    steps = np.diff(np.sort(centres, axis=0), axis=0).min(0)
    names = relations_along(steps, STEP)
    relation = names[int(rng.integers(len(names)))]
    axis, sign = RELATIONS[relation]
    order = np.argsort(sign * centres[:, axis])
    return radii[order], centres[order], relation
