"""One look at every picture of a set: what the guard rails (guard.py) go by."""

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
    """What is kept of one picture."""

    key: str
    place: int  # its index in the set
    hash: str  # of its pixels
    size: str  # width x height
    low: int
    high: int
    black: float  # share of its values that are 0
    constant: bool  # of one colour


@dataclass(frozen=True)
class Survey:
    """What one pass over a set found: of each picture that decodes, and why the others don't, by key."""

    name: str
    looks: list[ImageStats] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def sizes(self) -> list[str]:
        """All sizes, the most frequent first."""
        return [size for size, _ in Counter(look.size for look in self.looks).most_common()]

    @property
    def constant(self) -> list[str]:
        return [look.key for look in self.looks if look.constant]

    @property
    def black(self) -> float:
        return float(np.mean([look.black for look in self.looks]))

    def repeated(self) -> list[str]:
        """Keys of pictures that equal an earlier one of the set."""
        first: set[str] = set()
        return [look.key for look in self.looks if look.hash in first or first.add(look.hash)]

    def duplicates_of(self, hashes: Iterable[str]) -> list[str]:
        """Keys of pictures whose pixels are among others'."""
        known = set(hashes)
        return [look.key for look in self.looks if look.hash in known]


def survey(images: ImageSet) -> Survey:
    """One pass over a set, decoding a little ahead; damaged files are noted, not raised. A progress bar shows."""
    found = Survey(images.name)
    seen = ahead(lambda i: _look(images, i), range(len(images)))
    for key, look in zip(images.keys, tqdm(seen, total=len(images), desc="checking images", unit="image"), strict=True):
        if isinstance(look, str):
            found.damaged[key] = look
        else:
            found.looks.append(look)
    return found


def _look(images: ImageSet, index: int) -> ImageStats | str:
    try:
        picture = images[index]
    except WrongPicture:
        raise
    except UserError as error:
        return str(error)
    return ImageStats(images.keys[index], index, pixel_hash(picture), f"{picture.shape[1]}x{picture.shape[0]}",
                int(picture.min()), int(picture.max()), float(np.mean(picture == 0)),
                bool((picture == picture[0, 0]).all()))  # fmt: skip
