"""One pass over every picture of a set, for the checks of eval.checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from eval.images import ImageSet, WrongPicture, ahead, pixel_hash
from ragaf_exp.core.errors import UserError


@dataclass(frozen=True)
class ImageStats:
    """Facts about one picture."""

    key: str
    index: int  # in the set
    hash: str  # of its pixels
    size: str  # width x height
    low: int
    high: int
    black: float  # share of its values that are 0
    constant: bool  # of one colour


@dataclass(frozen=True)
class Survey:
    """Facts about each picture of a set that can be decoded, and the reason, by key, why the others can't."""

    name: str
    pictures: list[ImageStats] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def sizes(self) -> list[str]:
        """All sizes, the most frequent first."""
        return [size for size, _ in Counter(picture.size for picture in self.pictures).most_common()]

    @property
    def constant(self) -> list[str]:
        return [picture.key for picture in self.pictures if picture.constant]

    @property
    def black(self) -> float:
        return float(np.mean([picture.black for picture in self.pictures]))

    def repeated(self) -> list[str]:
        """Keys of pictures that equal an earlier one of the set."""
        first: set[str] = set()
        return [picture.key for picture in self.pictures if picture.hash in first or first.add(picture.hash)]

    def duplicates_of(self, hashes: Iterable[str]) -> list[str]:
        """Keys of pictures whose pixel hash is among `hashes`."""
        known = set(hashes)
        return [picture.key for picture in self.pictures if picture.hash in known]


def survey(images: ImageSet) -> Survey:
    """Decode every picture of a set once, with a progress bar; damaged files are recorded, not raised."""
    scanned = Survey(images.name)
    results = ahead(lambda i: _stats_of(images, i), range(len(images)))
    bar = tqdm(results, total=len(images), desc="checking images", unit="image")
    for key, picture in zip(images.keys, bar, strict=True):
        if isinstance(picture, str):
            scanned.damaged[key] = picture
        else:
            scanned.pictures.append(picture)
    return scanned


def _stats_of(images: ImageSet, index: int) -> ImageStats | str:
    try:
        array = images[index]
    except WrongPicture:
        raise
    except UserError as error:
        return str(error)
    return ImageStats(images.keys[index], index, pixel_hash(array), f"{array.shape[1]}x{array.shape[0]}",
                int(array.min()), int(array.max()), float(np.mean(array == 0)),
                bool((array == array[0, 0]).all()))  # fmt: skip
