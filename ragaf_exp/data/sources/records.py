"""Data sets in their official folder layouts, as records of file names: one rule for splits, faults, fitting and captions.

A source lists its records from names and annotation files alone, so that 118,000 items start in seconds. Images are
decoded on request, JPEG files at the smallest sufficient DCT scale.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.garbage import collection_paused
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item
from ragaf_exp.data.fit import PHOTO_FILTER, fit_drawing, fit_photo
from ragaf_exp.data.images import POLARITIES, read_drawing, read_image
from ragaf_exp.data.listing import in_short
from ragaf_exp.data.manifest import Manifest, manifest
from ragaf_exp.data.sources.sized import Sized
from ragaf_exp.data.split import check_shares, remark, split_id, split_lists, working_shares

log = logging.getLogger(__name__)
Made = TypeVar("Made")
ASPECT = 0.1  # largest difference between the logarithms of the aspects of an image and its drawing


@dataclass(frozen=True, slots=True)
class Record:
    """An item of a data set, before any of its files is read."""

    key: str  # identity on every host: a relative name without suffix, NFC
    image: str = ""  # path relative to the root; "" if the item has no image file
    drawing: str = ""  # path relative to the root; "" if the item has no drawing
    captions: tuple[str, ...] = ()
    group: str = ""  # records of one group share a split; "" = the key
    split: str = ""  # train, val or test where the data set defines it, else ""
    flags: tuple[str, ...] = ()  # the data set's own remarks, as Sketchy's "error"
    difficulty: int | None = None  # the data set's own rating
    problem: str = ""  # what makes it unusable; "" for a valid record
    place: int = 0  # position in a file of many items

    @property
    def unit(self) -> str:
        """The group by which records are split."""
        return self.group or self.key


class RecordSource(Sized):
    """A data source made of records; subclasses list them, and may read them in other ways.

    Args:
        root: The data set's folder.
        records: All records, with those that `drop` and faults will leave out.
        size: As in Sized, like `fit`, `buckets`, `upscale` and `crop_input`.
        fit: Likewise.
        polarity: Of the drawings: "auto", "dark" or "light" strokes.
        drop: Flags whose records are left out.
        on_error: Treatment of records with a problem: "raise" names them, "skip" counts them in `.skipped`.
        check: Decode every file at the start.
        val_share: Share of groups for val, in [0, 1), where the data set defines no split.
        test_share: Share of groups for test, likewise.
        buckets: As in Sized.
        upscale: Likewise.
        crop_input: Likewise.

    Raises:
        UserError: A value is invalid, a record unusable, or none is left.
    """

    every_caption = True  # each caption of a record is a training item

    def __init__(
        self,
        root: Path,
        records: list[Record],
        size: int,
        fit: str = "crop",
        polarity: str = "auto",
        drop: Sequence[str] = (),
        on_error: str = "raise",
        check: bool = False,
        val_share: float = 0.1,
        test_share: float = 0.1,
        buckets: bool = False,
        upscale: bool = False,
        crop_input: bool = False,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise UserError(f"data.on_error={on_error}: must be raise or skip")
        if polarity not in POLARITIES:
            raise UserError(f"data.polarity={polarity}: must be {', '.join(POLARITIES)}")
        super().__init__(root, size, fit, buckets, upscale, crop_input)
        check_shares(val_share, test_share)
        self.polarity = polarity
        self._shares = (val_share, test_share)
        self.records, self.dropped_flags = records, frozenset(drop)
        with collection_paused():
            self.usable, self.skipped = self._without_faults(on_error, check)
            self._splits = self._split_up()

    @property
    def resampling(self) -> str:
        """How photos are shrunk; "" without photos."""
        return PHOTO_FILTER if any(record.image for record in self.usable) else ""

    def split(self, name: str) -> Sequence[Item]:
        """Return the items of "train", "val" or "test", possibly none. Raises UserError for another name."""
        split_id(name)
        chosen = self._splits[name]
        shown = [
            (record, number)
            for record in chosen
            for number in range(max(1, len(record.captions)) if name == "train" and self.every_caption else 1)
        ]
        sizes = None if self.buckets is None else [self.size_of(record) for record, _ in shown]
        return LazyItems(partial(_nth, self.item, shown), len(shown), partial(_nth, caption_of, shown), sizes)

    def records_of(self, name: str) -> list[Record]:
        """Return the usable records of "train", "val" or "test"."""
        return self._splits[name]

    def item(self, record: Record, number: int = 0) -> Item:
        """Read an item.

        Args:
            record: The record.
            number: Index of its caption.
        """
        image, drawing = self.read(record)
        text, crop = caption_of(record, number), self.crop_of(record)
        return Item(key_of(record, number), image, text, drawing, crop=crop, difficulty=record.difficulty)

    def read(self, record: Record) -> tuple[np.ndarray, np.ndarray | None]:
        """Read image (H, W, 3) uint8 and drawing (H, W) float32, or None, of a record. Raises UserError."""
        size = self.size_of(record)
        image = read_image(self.root / record.image, side=self.side_of(record))
        if not record.drawing:
            return fit_photo(image, size, self.fit), None
        drawing = read_drawing(self.root / record.drawing, self.polarity)
        check_aligned(image, drawing, record)
        return fit_photo(image, size, self.fit), fit_drawing(drawing, size, self.fit)

    def advice(self) -> str:
        """Advise how to fill an empty split."""
        units = list(dict.fromkeys(record.unit for record in self.usable if record.split not in ("val", "test")))
        working = working_shares(units, *(share or 0.1 for share in self._shares)) if units else None
        keys = "set data.val_share={:g} data.test_share={:g}, or ".format(*working) if working else ""
        return f"{keys}give more images"

    def manifest(self) -> Manifest:
        """Return the manifest of the records and their files, by size and time."""
        rows = [[r.key, list(r.captions), r.split, list(r.flags)] for r in self.records]
        names = dict.fromkeys(name for r in self.records for name in (r.image, r.drawing) if name and not r.problem)
        return manifest(rows, {name: self.root / name for name in names}, {})

    def _without_faults(self, on_error: str, check: bool) -> tuple[list[Record], int]:
        """Return the usable records, and the number of those with problems."""
        wanted = [record for record in self.records if not self.dropped_flags & set(record.flags)]
        if not wanted:
            raise UserError(f"data.root={self.root}: no item is left; drop fewer flags, or check the folder")
        inspect = self.fault if check else self._header_fault if self.buckets else None
        faults = _each(inspect, wanted) if inspect else [record.problem for record in wanted]
        problems = [f"{record.key}: {fault}" for record, fault in zip(wanted, faults, strict=True) if fault]
        good = [record for record, fault in zip(wanted, faults, strict=True) if not fault]
        if problems:
            text = f"{self.root}: {len(problems)} of {len(wanted)} items can't be used: {in_short(problems, '; ')}"
            if on_error == "raise" or not good:
                raise UserError(f"{text}; {'fix them or set data.on_error=skip' if good else 'no item is left; fix them'}")
            log.warning("%s; skipped (data.on_error=skip)", text)
        return good, len(problems)

    def fault(self, record: Record) -> str:
        """Describe what keeps a record from being read; "" if nothing does. Decodes its files."""
        return record.problem or _fault_of(self.read, record)

    def _header_fault(self, record: Record) -> str:
        """Describe a record's problem or that of its picture's header; "" for neither."""
        return record.problem or _fault_of(self.shape_of, record)

    def _split_up(self) -> dict[str, list[Record]]:
        """Assign the usable records to splits by their groups."""
        given: dict[str, str] = {}
        for record in self.usable:
            given.setdefault(record.unit, record.split)
        splits, filled = split_lists(list(given), *self._shares, given)
        if text := remark(splits, filled):
            log.warning("%s: %s", self.root, text)
        chosen = {name: set(units) for name, units in splits.items()}
        return {name: [r for r in self.usable if r.unit in units] for name, units in chosen.items()}


def _fault_of(read: Callable[[Record], object], record: Record) -> str:
    try:
        read(record)
    except UserError as error:
        return str(error)
    return ""


def _each(inspect: Callable[[Record], str], records: list[Record]) -> list[str]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return list(pool.map(inspect, records))


def _nth(make: Callable[[Record, int], Made], shown: list[tuple[Record, int]], index: int) -> Made:
    return make(*shown[index])


def key_of(record: Record, number: int = 0) -> str:
    """Return the key of the item with a caption of a record."""
    return f"{record.key}#{number + 1}" if number else record.key


def caption_of(record: Record, number: int = 0) -> str:
    """Return a caption of a record; "" without captions."""
    return record.captions[number] if record.captions else ""


def check_aligned(image: np.ndarray, drawing: np.ndarray, record: Record) -> None:
    """Raise UserError if a drawing's aspect differs from that of its image.

    Args:
        image: (H, W, 3).
        drawing: (h, w).
        record: Their record, for the message.
    """
    if abs(np.log(drawing.shape[0] * image.shape[1] / drawing.shape[1] / image.shape[0])) > ASPECT:
        raise UserError(f"{record.drawing}: its aspect differs from that of {record.image}, so they are not aligned")


def root_folder(root: str, layout: str) -> Path:
    """Check that data.root is a folder. `layout` says what is expected in it. Raises UserError."""
    if not root:
        raise UserError(f"data.root: no folder is given; set data.root=DIR, {layout}")
    path = Path(root)
    if not path.is_dir():
        reason = "is not a folder" if path.exists() else "no such folder"
        raise UserError(f"data.root={root}: {reason}; expected is {layout}")
    return path
