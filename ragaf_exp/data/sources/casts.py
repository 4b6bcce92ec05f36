"""Embedded data for white balance: scenes and photos under a wrong light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import skimage.data

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item
from ragaf_exp.data.light import Light, sample_light
from ragaf_exp.data.sources.layered import LayeredScenes
from ragaf_exp.data.sources.scenes import Scenes
from ragaf_exp.data.split import SPLITS, split_id

PHOTOS = ("astronaut", "cat", "coffee", "rocket")  # that come with scikit-image's package, in colour
CROP = (0.5, 1.0)  # side of a photo's crop, as a share of its shorter side


class Casts:
    """Images under a wrong light; every item is a pure function of (seed, split, index).

    An item's image is the right one. Its conditions: `given`, the image under the wrong light (H,W,3) uint8; `light`,
    its parameters as of data.light.Light.parameters, (4,) float.

    Args:
        size: Side of the square images in pixels, a multiple of 4.
        seed: Seed of all items.
        train: Number of training items.
        val: Number of validation items.
        test: Number of test items.
        low: Lowest colour temperature in kelvin.
        high: Highest colour temperature in kelvin.
        tint: Standard deviation of the tint.
        exposure: Largest change of exposure either way, in stops.
        gamma: Largest log gamma either way.
        photo_share: Share of items that are crops of scikit-image's photos instead of scenes.
        holdout: The photo that is never trained on and that val and test take alone; "" shares all photos by crops.

    Raises:
        UserError: A value is out of range.
    """

    def __init__(
        self, size: limits.Size = 64, seed: limits.Seed = 0, train: limits.Items = 6000, val: limits.Items = 256,
        test: limits.Items = 256, low: limits.Kelvin = 2500.0, high: limits.Kelvin = 10000.0, tint: limits.Tint = 0.06,
        exposure: limits.Stops = 0.3,
        gamma: limits.LogGamma = 0.1, photo_share: limits.Share = 0.0, holdout: str = "",
    ) -> None:  # fmt: skip
        if low > high:
            raise UserError(f"data.low={low}: must be at most data.high={high}; take 2500")
        if holdout and holdout not in PHOTOS:
            raise UserError(f"data.holdout={holdout}: must be one of {', '.join(PHOTOS)}")
        scenes = Scenes(size, seed, train, val, test)
        self.size, self.seed, self.lengths = size, seed, dict(zip(SPLITS, (train, val, test), strict=True))
        self._scenes = LayeredScenes(scenes, shadow_share=0.5)
        self._light = {"low": low, "high": high, "tint": tint, "exposure": exposure, "gamma": gamma}
        self.photo_share, self.holdout = photo_share, holdout

    def split(self, name: str) -> Sequence[Item]:
        """Return the items of "train", "val" or "test". Raises UserError for another name."""
        split_id(name)
        return LazyItems(partial(self._make, name), self.lengths[name], partial(self._caption, name))

    def _make(self, split: str, index: int) -> Item:
        rng, light, is_photo = self._start(split, index)
        key = f"casts{self.seed}-{split}-{index}"
        if is_photo:
            item = self._photo(rng, split, key)
        else:
            scene = self._scenes.sample(rng)
            caption, objects, object_map = scene.annotation()
            item = Item(key, scene.image(), caption, scene.drawing(), objects, object_map)
        conditions = {"given": light.render(item.image), "light": light.parameters()}
        return replace(item, conditions=conditions)

    def _caption(self, split: str, index: int) -> str:
        rng, _, is_photo = self._start(split, index)
        return "" if is_photo else self._scenes.layout(rng).caption()[0]

    def _start(self, split: str, index: int) -> tuple[np.random.Generator, Light, bool]:
        """Generator of an item, its light, and whether it is a photo."""
        rng = np.random.default_rng([self.seed, split_id(split), index, 2])
        return rng, sample_light(rng, **self._light), rng.random() < self.photo_share

    def _photo(self, rng: np.random.Generator, split: str, key: str) -> Item:
        """Crop a photo at random, mirrored half the time."""
        names = [name for name in PHOTOS if (name == self.holdout) == (split != "train")] if self.holdout else PHOTOS
        name = names[int(rng.integers(len(names)))]
        photo = getattr(skimage.data, name)()[..., :3]
        side = round(min(photo.shape[:2]) * (CROP[0] + rng.random() * (CROP[1] - CROP[0])))
        top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
        crop = photo[top : top + side, left : left + side]
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        image = cv2.resize(np.ascontiguousarray(crop), (self.size, self.size), interpolation=cv2.INTER_AREA)
        return Item(key, image, "")
