"""Embedded data for removal: textured scenes with and without an object and its soft shadow."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.types import Item
from ragaf_exp.data.sources.layered import ObjectScenes
from ragaf_exp.data.sources.palette import OBJECT_COLOURS
from ragaf_exp.data.sources.scenes import Scenes

SHADOW_LEVEL = 0.04  # share of the light from which on a shadow is visible
MARGIN = (1.0, 5.0)  # around the object, in 64ths of the side


class Removal(ObjectScenes):
    """Scenes of which one object goes; every item is a pure function of (seed, split, index).

    An item's image is the scene without the object. Its conditions: `given`, the scene with it (H,W,3) uint8; `hole`,
    the object with a margin drawn at random (H,W) float; `shadow`, where the object's shadow is visible outside it, and
    `removed`, the object alone, for metrics; `colour`, the object's (3,).

    Args:
        size: Side of the square images in pixels, a multiple of 4.
        seed: Seed of all scenes.
        train: Number of training items.
        val: Number of validation items.
        test: Number of test items.
        min_objects: Smallest number of objects, the removed one included.
        max_objects: Largest number of objects.
        shadow_share: Share of scenes whose objects cast shadows.
    """

    def __init__(
        self, size: limits.Size = 64, seed: limits.Seed = 0, train: limits.Items = 6000, val: limits.Items = 256,
        test: limits.Items = 256, min_objects: limits.Objects = 2, max_objects: limits.Objects = 4,
        shadow_share: limits.Share = 0.7,
    ) -> None:  # fmt: skip
        super().__init__(Scenes(size, seed, train, val, test, min_objects, max_objects), shadow_share, 1)

    def _make(self, split: str, index: int) -> Item:
        rng, layout, gone = self._start(split, index)
        scene = self._scenes.render(layout, rng)
        layer = scene.layers[gone]
        removed = layer.mask(self.size)
        margin = MARGIN[0] + rng.random() * (MARGIN[1] - MARGIN[0])
        hole = grown(removed, margin * self.size / 64)
        shadow = (layer.shadow > SHADOW_LEVEL) & ~removed
        caption, objects, object_map = scene.annotation([gone])
        conditions = {
            "given": scene.image(), "hole": hole.astype(np.float32), "shadow": shadow.astype(np.float32),
            "removed": removed.astype(np.float32), "colour": np.array(OBJECT_COLOURS[layer.spec.colour], np.float32),
        }  # fmt: skip
        key, image = f"removal{self.seed}-{split}-{index}", scene.image([gone])
        return Item(key, image, caption, scene.drawing([gone]), objects, object_map, conditions=conditions)


def grown(mask: np.ndarray, radius: float) -> np.ndarray:
    """Dilate a mask (H,W) bool by a radius in pixels."""
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return distance <= radius
