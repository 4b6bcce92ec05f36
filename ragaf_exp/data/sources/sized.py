"""Sizes of a source's pictures: one square, or with buckets the size whose aspect is nearest to each picture's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ragaf_exp.core.types import Crop
from ragaf_exp.data.buckets import Buckets, Size
from ragaf_exp.data.decode import upright_size
from ragaf_exp.data.fit import check_fit, crop_window
from ragaf_exp.data.split import check_size

if TYPE_CHECKING:
    from ragaf_exp.data.sources.records import Record


class Sized:
    """Chooses the size of each picture of a source, and which part of it an item shows.

    Args:
        root: The data set's folder.
        size: Side of the square images, in pixels; of the buckets' square with `buckets`.
        fit: "crop" takes the central part of the size's aspect, "pad" the whole image.
        buckets: Fit each image to the size nearest its aspect instead of a square (see data.buckets).
        upscale: With buckets: enlarge images that are smaller than their bucket.
        crop_input: Items hold the part of their picture that they show, which they do with buckets anyway.

    Raises:
        UserError: A value is invalid.
    """

    def __init__(
        self, root: Path, size: int, fit: str, buckets: bool = False, upscale: bool = False, crop_input: bool = False
    ) -> None:
        check_size(size)
        check_fit(fit)
        self.root, self.size, self.fit = root, size, fit
        self.buckets = Buckets(size, upscale) if buckets else None
        self._with_crops = (buckets or crop_input) and fit == "crop"
        self._shapes: dict[str, Size] = {}

    def set_unit(self, unit: int) -> None:
        """With buckets: make all sides multiples of `unit` pixels, as the networks need."""
        if self.buckets is not None:
            self.buckets.set_unit(unit)

    def file_of(self, record: Record) -> tuple[Path, bytes | None]:
        """Return the path of a record's picture, and its bytes where they are not in a file. Raises UserError."""
        return self.root / record.image, None

    def shape_of(self, record: Record) -> Size:
        """Height and width of a record's picture, upright; its header is read once. Raises UserError."""
        if record.image not in self._shapes:
            self._shapes[record.image] = upright_size(*self.file_of(record))
        return self._shapes[record.image]

    def size_of(self, record: Record) -> Size:
        """Height and width that a record's picture is fitted to."""
        return (self.size, self.size) if self.buckets is None else self.buckets.fit(*self.shape_of(record))

    def side_of(self, record: Record) -> int:
        """Pixels that the shorter side of a record's picture must keep when it is decoded at a fraction of its size."""
        if self.buckets is None:
            return self.size
        (height, width), (rows, columns) = self.shape_of(record), self.size_of(record)
        return math.ceil(min(height, width) * max(rows / height, columns / width))

    def crop_of(self, record: Record) -> Crop | None:
        """Return the part of its picture that a record's item shows; None where that is no input or all is shown."""
        if not self._with_crops:
            return None
        shape = self.shape_of(record)
        return Crop(*crop_window(shape, self.size_of(record)), shape)
