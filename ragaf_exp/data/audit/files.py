"""Inspection of every file of a data set once: size, channels, checksum, perceptual hash, and whether it is readable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import xxhash
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.decode import FORMATS, SUFFIXES
from ragaf_exp.data.images import read_image
from ragaf_exp.data.sources.records import Record

HASH = 8  # rows and columns of a perceptual hash
DECODED = 64  # px, shorter side to which JPEG files are decoded


@dataclass(frozen=True)
class Look:
    """The content of one image file."""

    path: str
    fault: str = ""  # why it can't be read; "" if it can
    width: int = 0
    height: int = 0
    mode: str = ""  # Pillow's: RGB, L, CMYK, ...
    turned: bool = False  # by EXIF
    checksum: str = ""  # of the bytes
    hash: int = 0  # difference hash, 64 bits


def inspect(root: Path, paths: Iterable[str], done: Callable[[], object]) -> dict[str, Look]:
    """Inspect image files.

    Args:
        root: The folder that the paths are relative to.
        paths: The files.
        done: Called after each file.

    Returns:
        Path -> look.
    """
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        looks = {}
        for look in pool.map(partial(_look, root), paths):
            looks[look.path] = look
            done()
    return looks


def is_raster(path: str) -> bool:
    """Whether a path is that of an image file."""
    return Path(path).suffix.lower() in SUFFIXES


def inspect_items(source: Any, records: Iterable[Record], done: Callable[[], object]) -> dict[str, Look]:
    """Inspect items that are no image files: vector drawings, and rows of tables.

    Args:
        source: The data source.
        records: Such records.
        done: Called after each.

    Returns:
        The path of the image, or the key -> look.
    """
    looks = {}
    for record in records:
        name = record.image or record.key
        try:
            image, _ = source.read(record)
            sides = image.shape[1], image.shape[0]
            digest = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(image))
            looks[name] = Look(name, "", *sides, "RGB" if record.image else "vector", False, digest, hash_of(image))
        except UserError as error:
            looks[name] = Look(name, str(error))
        done()
    return looks


def _look(root: Path, path: str) -> Look:
    try:
        content = (root / path).read_bytes()
        image = read_image(root / path, content, DECODED)
        with Image.open(root / path, formats=FORMATS) as picture:
            width, height = picture.size
            turned = picture.getexif().get(0x0112, 1) not in (0, 1)
            return Look(path, "", width, height, picture.mode, turned, xxhash.xxh3_128_hexdigest(content), hash_of(image))
    except UserError as error:
        return Look(path, str(error))
    except OSError as error:
        return Look(path, f"{root / path}: can't be read ({error.strerror or error})")


def hash_of(image: np.ndarray) -> int:
    """Compute the difference hash of an image (H, W, 3) uint8: whether each cell is brighter than its right neighbour."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH + 1, HASH), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def is_flat(value: int) -> bool:
    """Whether a hash is of a picture without structure, which resembles any other such picture."""
    return not 8 <= value.bit_count() <= 56
