"""Embedded data for insertion: textured scenes with a hole where an object belongs, and a picture of that object."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.types import Item
from ragaf_exp.data.light import sample_light
from ragaf_exp.data.sources import render
from ragaf_exp.data.sources.layered import Layer, ObjectScenes
from ragaf_exp.data.sources.palette import OBJECT_NAMES
from ragaf_exp.data.sources.removal import SHADOW_LEVEL
from ragaf_exp.data.sources.scenes import FILLS, Scenes
from ragaf_exp.data.sources.shapes import SHAPE_NAMES

MARGIN = (1.0, 3.5)  # between the object and each side of the hole, in 64ths of the side
RADIUS = (14.0, 26.0)  # of the object in its own picture, likewise
CANVAS = (170, 250)  # grey level of the picture's ground
TURN = 0.3  # largest turn of the object in its picture, in radians either way
KIND = ("shape", "colour", "fill")
NAMES = (SHAPE_NAMES, OBJECT_NAMES, FILLS)  # the values that the entries of an item's `kind` count


class Insertion(ObjectScenes):
    """Scenes into which one object goes; every item is a pure function of (seed, split, index).

    An item's image is the scene with the object. Its conditions: `hole`, a box around the object and its shadow (H,W)
    float; `object`, a picture of the object in another size, turn and light (H,W,3) uint8; for metrics `inserted`, the
    object's pixels (H,W) float, and `kind`, the indices of its shape, colour and fill in NAMES (3,) float. Caption and
    drawing are those of the scene without the object, so that its picture alone describes it.

    Args:
        size: Side of the square images in pixels, a multiple of 4.
        seed: Seed of all scenes.
        train: Number of training items.
        val: Number of validation items.
        test: Number of test items.
        min_objects: Smallest number of objects, the inserted one included.
        max_objects: Largest number of objects.
        shadow_share: Share of scenes whose objects cast shadows.
    """

    def __init__(
        self, size: limits.Size = 64, seed: limits.Seed = 0, train: limits.Items = 6000, val: limits.Items = 256,
        test: limits.Items = 256, min_objects: limits.Objects = 2, max_objects: limits.Objects = 4,
        shadow_share: limits.Share = 0.5,
    ) -> None:  # fmt: skip
        super().__init__(Scenes(size, seed, train, val, test, min_objects, max_objects), shadow_share, 3)

    def _make(self, split: str, index: int) -> Item:
        rng, layout, chosen = self._start(split, index)
        scene = self._scenes.render(layout, rng)
        layer = scene.layers[chosen]
        inserted = layer.mask(self.size)
        hole = _box_around(inserted | (layer.shadow > SHADOW_LEVEL), rng)
        caption, objects, object_map = scene.annotation([chosen])
        spec = layer.spec
        kind = [names.index(value) for names, value in zip(NAMES, (spec.shape, spec.colour, spec.fill), strict=True)]
        conditions = {
            "hole": hole, "object": self._picture(layer, rng), "inserted": inserted.astype(np.float32),
            "kind": np.array(kind, np.float32),
        }  # fmt: skip
        key = f"insertion{self.seed}-{split}-{index}"
        return Item(key, scene.image(), caption, scene.drawing([chosen]), objects, object_map, conditions=conditions)

    def _picture(self, layer: Layer, rng: np.random.Generator) -> np.ndarray:
        """Render the object on a plain canvas: (size,size,3) uint8."""
        grid = render.grid_for(self.size, self.size)
        contours = _posed(layer.contours, rng)
        canvas = np.full((self.size, self.size, 3), rng.integers(*CANVAS), np.float32)
        box, alpha = render.coverage(contours, grid)
        render.paint(canvas, alpha, box, render.object_colour(layer.spec.colour, layer.spec.fill, box, grid, rng))
        light = sample_light(rng, low=4500.0, high=9000.0, tint=0.02, exposure=0.35, gamma=0.05)
        return light.render(np.rint(canvas).astype(np.uint8))


def _posed(contours: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Turn contours a little, scale them to a radius of RADIUS and move them near the centre."""
    low, high = contours[0].min(0), contours[0].max(0)
    centred = [contour - (low + high) / 2 for contour in contours]
    radius = RADIUS[0] + rng.random() * (RADIUS[1] - RADIUS[0])
    turn = TURN * (2 * rng.random() - 1)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    scale = radius / np.linalg.norm(centred[0], axis=1).max()
    room = render.UNITS / 2 - radius - 1
    centre = render.UNITS / 2 + room * (2 * rng.random(2) - 1) / 2
    return [(contour @ matrix * scale + centre).astype(np.float32) for contour in centred]


def _box_around(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box (H,W) float32 around a mask, with another margin on each side."""
    unit = mask.shape[0] / render.UNITS
    margins = np.rint((MARGIN[0] + rng.random(4) * (MARGIN[1] - MARGIN[0])) * unit).astype(int)
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    box = np.zeros(mask.shape, np.float32)
    top, left = max(0, y - margins[0]), max(0, x - margins[1])
    box[top : y + height + margins[2], left : x + width + margins[3]] = 1
    return box
