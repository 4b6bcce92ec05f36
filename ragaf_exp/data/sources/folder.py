"""A folder of the user's images, by the Hugging Face ImageFolder convention, with optional paired drawings.

    root/metadata.jsonl        rows with file_name (relative to the file) and text, a caption or a list of them; or
                               metadata.csv (separated by comma, semicolon or tab), .tsv, .parquet
    root/photo.jpg ...         the images, in subfolders if wanted
    root/train/metadata.jsonl  instead of the first: one level down, where folders train, validation, test define splits
    drawings/photo.png ...     optional: a drawing for each image, same path but for the suffix

Names may differ from those on disk in case, Unicode normal form or by backslashes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Crop, Item
from ragaf_exp.data.buckets import Buckets
from ragaf_exp.data.decode import upright_size
from ragaf_exp.data.fit import check_fit, crop_window
from ragaf_exp.data.images import (
    SUFFIXES,
    check_header,
    fit_drawing,
    fit_image,
    read_drawing,
    read_image,
    stroke_share,
    warn_of_odd,
)
from ragaf_exp.data.manifest import Manifest, manifest
from ragaf_exp.data.sources.metadata import Row, read_rows
from ragaf_exp.data.sources.names import Names
from ragaf_exp.data.sources.records import Record
from ragaf_exp.data.split import check_shares, check_size, remark, split_id, split_lists, working_shares

log = logging.getLogger(__name__)
SHOWN = 3  # bad rows named in a message


class Folder:
    """Images with captions from a folder; the split depends on each image's file name, unless subfolders define it.

    With few images, a split that the hash leaves empty is filled (see split.split_lists). Each caption of an image is
    a training item; val and test use the first only.

    Args:
        root: The folder.
        size: Side of the square images, in pixels; of the buckets' square with `buckets`.
        drawings: Folder of line drawings, searched for under root first; "" extracts sketches from the images.
        text_column: Column of the captions; an empty caption is allowed.
        on_error: Treatment of rows whose files are missing or unreadable: "raise" names them, "skip" counts them in
            `.skipped` and warns once.
        fit: "crop" takes the central square, "pad" the whole image.
        polarity: Of the drawings: "auto", "dark" or "light" strokes.
        val_share: Share of images for val, in [0, 1).
        test_share: Share of images for test, in [0, 1).
        check: Decode every file at the start, instead of reading headers only.
        cache_mb: MiB of memory for resized images, so that each is decoded once.
        buckets: Fit each image to the size nearest its aspect instead of a square (see data.buckets).
        upscale: With buckets: enlarge images that are smaller than their bucket.
        crop_input: The networks get what is cut off each image as an input.

    Raises:
        UserError: A value is invalid or a file unusable.
    """

    def __init__(
        self,
        root: str = "",
        size: limits.Size = 64,
        drawings: str = "",
        text_column: str = "text",
        on_error: str = "raise",
        fit: str = "crop",
        polarity: str = "auto",
        val_share: limits.ShareBelowOne = 0.1,
        test_share: limits.ShareBelowOne = 0.1,
        check: bool = True,
        cache_mb: limits.Megabytes = 512,
        buckets: bool = False,
        upscale: bool = False,
        crop_input: bool = False,
    ) -> None:
        if not root:
            raise UserError("data.root: no folder is given; set data.root=DIR, with images and metadata.jsonl in it")
        if on_error not in ("raise", "skip"):
            raise UserError(f"data.on_error={on_error}: must be raise or skip")
        if polarity not in ("auto", "dark", "light"):
            raise UserError(f"data.polarity={polarity}: must be auto, dark or light")
        if cache_mb < 0:
            raise UserError(f"data.cache_mb={cache_mb}: must be 0 or more")
        check_size(size)
        check_fit(fit)
        check_shares(val_share, test_share)
        self.root, self.size, self.fit, self.polarity = Path(root), size, fit, polarity
        self.buckets = Buckets(size, upscale) if buckets else None
        self._shapes: dict[str, tuple[int, int]] = {}  # height and width of each image, upright
        self._drawings = Names(self._find_drawings(drawings)) if drawings else None
        self._shares = (val_share, test_share)
        self._cache: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
        self._room = cache_mb * 2**20 // (size * size * (7 if drawings else 3))
        self._strokes: dict[str | Path, float] = {}  # share of strokes in each decoded drawing
        self._sums: dict[Path, str] = {}  # sha256 of the files that were read
        self._named = read_rows(self.root, text_column)
        self._paths = {row.file_name: self.root / row.path for row in self._named if row.path}
        self._rows, self.skipped = self._usable(self._named, on_error, check)
        warn_of_odd(self._strokes)
        self._splits = self._split_up()

    def split(self, name: str) -> Sequence[Item]:
        """Return the items of "train", "val" or "test", possibly none. Raises UserError for another name."""
        split_id(name)
        chosen = set(self._splits[name])
        shown = [
            _Shown(f"{row.file_name}#{row.number}{f'.{i}' * (i > 1)}", row.file_name, text)
            for row in self._rows
            if row.file_name in chosen
            for i, text in enumerate(row.texts if name == "train" else row.texts[:1], 1)
        ]
        sizes = None if self.buckets is None else [self._size_of(one.file_name) for one in shown]
        return LazyItems(partial(_nth, self._item, shown), len(shown), partial(_nth, attrgetter("text"), shown), sizes)

    def set_unit(self, unit: int) -> None:
        """With buckets: make all sides multiples of `unit` pixels, as the networks need."""
        if self.buckets is not None:
            before = self.buckets.step
            self.buckets.set_unit(unit)
            if self.buckets.step != before:
                self._cache.clear()

    def _size_of(self, file_name: str) -> tuple[int, int]:
        """Height and width that an image is fitted to."""
        return (self.size, self.size) if self.buckets is None else self.buckets.fit(*self._shape_of(file_name))

    def _shape_of(self, file_name: str) -> tuple[int, int]:
        """Height and width of an image's file; from its header, until it has been decoded."""
        if file_name not in self._shapes:
            self._shapes[file_name] = upright_size(self._paths[file_name])
        return self._shapes[file_name]

    @property
    def records(self) -> list[Record]:
        """The rows as records, those with problems included, for an audit."""
        return [self._record(row) for row in self._named]

    def records_of(self, name: str) -> list[Record]:
        """Return the usable rows of "train", "val" or "test" as records."""
        chosen = set(self._splits[name])
        return [self._record(row) for row in self._rows if row.file_name in chosen]

    def read(self, record: Record) -> tuple[np.ndarray, np.ndarray | None]:
        """Read resized image and drawing of a record. Raises UserError."""
        return self._load(record.group)

    def _record(self, row: Row) -> Record:
        drawing = self._drawing(row.file_name) if row.file_name else None
        missing = self._drawings is not None and drawing is None
        problem = row.problem or ("it has no drawing" if missing else "")
        if not problem and not self._paths[row.file_name].is_file():
            problem = f"{self._paths[row.file_name]}: no such file"
        path = str(drawing.absolute()) if drawing else ""
        return Record(f"{row.file_name}#{row.number}", row.path, path, row.texts, row.file_name, row.split, problem=problem)

    def advice(self) -> str:
        """Advise how to fill an empty split."""
        given = {row.split for row in self._rows}
        configured = zip(("val", "test"), self._shares, strict=True)
        shares = (0.0 if split in given else share or 0.1 for split, share in configured)
        names = [row.file_name for row in self._rows if row.split not in ("val", "test")]
        working = working_shares(names, *shares) if names else None
        keys = "set data.val_share={:g} data.test_share={:g}, or ".format(*working) if working else ""
        return f"{keys}give more images"

    def manifest(self) -> Manifest:
        """Return the manifest of the folder's rows and files, with checksums of those that were read."""
        rows = [[row.file_name, list(row.texts), row.split] for row in self._named]
        drawings = {f"{name} (drawing)": path for name in self._paths if (path := self._drawing(name))}
        return manifest(rows, self._paths | drawings, self._sums)

    def _split_up(self) -> dict[str, list[str]]:
        """Assign names to splits, with a warning if there are too few for the hash to fill all."""
        given = {row.file_name: row.split for row in self._rows}
        splits, filled = split_lists(list(given), *self._shares, given)
        if text := remark(splits, filled):
            log.warning("%s: %s", self.root, text)
        return splits

    def _find_drawings(self, drawings: str) -> Path:
        for folder in (self.root / drawings, Path(drawings)):
            if folder.is_dir():
                return folder
        raise UserError(f"data.drawings={drawings}: no such folder, neither under {self.root} nor as given")

    def _drawing(self, file_name: str) -> Path | None:
        """Locate the drawing of an image; None if there is none of that name."""
        if self._drawings is None:
            return None
        name = self._drawings.with_stem(Path(file_name).with_suffix("").as_posix(), SUFFIXES)
        return name and self._drawings.root / name

    def _drawing_path(self, file_name: str) -> Path | None:
        """Locate the drawing of an image; None without drawings. Raises UserError if it is missing."""
        if self._drawings is not None and (path := self._drawing(file_name)) is None:
            stem = self._drawings.root / Path(file_name).with_suffix("")
            raise UserError(f"{stem}.*: no drawing of that name for {file_name}; add it")
        return path if self._drawings is not None else None

    def _usable(self, rows: list[Row], on_error: str, check: bool) -> tuple[list[Row], int]:
        """Return the rows whose files are valid, and the number of the others."""
        names = list(dict.fromkeys(row.file_name for row in rows if not row.problem))
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            faults = dict(zip(names, pool.map(partial(self._fault, check), names), strict=True))
        problems = [
            f"{row.label}: {row.problem or faults[row.file_name]}" for row in rows if row.problem or faults[row.file_name]
        ]
        good = [row for row in rows if not row.problem and not faults[row.file_name]]
        if not problems:
            return good, 0
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        shown = "; ".join(problems[:SHOWN]) + more
        text = f"{self.root}: {len(problems)} of {len(rows)} rows can't be used: {shown}"
        if on_error == "raise" or not good:
            remedy = "fix them or set data.on_error=skip" if good else "no row is left; fix them"
            raise UserError(f"{text}; {remedy}")
        log.warning("%s; skipped (data.on_error=skip)", text)
        return good, len(problems)

    def _fault(self, check: bool, file_name: str) -> str:
        """Describe the fault of a row's files; "" if there is none."""
        try:
            if check:
                self._load(file_name)
            else:
                check_header(self._paths[file_name])
                if drawing := self._drawing_path(file_name):
                    check_header(drawing)
        except UserError as error:
            return str(error)
        return ""

    def _load(self, file_name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Load the resized image, and its drawing if there are drawings."""
        if file_name in self._cache:
            return self._cache[file_name]
        image, path = self._read(self._paths[file_name], read_image), self._drawing_path(file_name)
        self._shapes.setdefault(file_name, image.shape[:2])
        size = self._size_of(file_name)
        drawing = None
        if path is not None:
            drawing = self._read(path, partial(read_drawing, polarity=self.polarity))
            if abs(np.log(drawing.shape[0] * image.shape[1] / drawing.shape[1] / image.shape[0])) > 0.1:
                raise UserError(f"{path}: its aspect differs from that of {file_name}, so they are not aligned; redo it")
            self._strokes[path] = stroke_share(drawing)
            drawing = fit_drawing(drawing, size, self.fit)
        pair = fit_image(image, size, self.fit), drawing
        if len(self._cache) < self._room:
            self._cache[file_name] = pair
        return pair

    def _read(self, path: Path, read: Callable[[Path], np.ndarray]) -> np.ndarray:
        """Decode a file and record its checksum."""
        picture = read(path)
        if path not in self._sums:
            self._sums[path] = checksum(path)
        return picture

    def _item(self, shown: _Shown) -> Item:
        image, drawing = self._load(shown.file_name)
        return Item(shown.key, image, shown.text, drawing, crop=self._crop_of(shown.file_name))

    def _crop_of(self, file_name: str) -> Crop | None:
        """Return the part of its file that an item shows; None where the whole image is padded."""
        shape = self._shape_of(file_name)
        return Crop(*crop_window(shape, self._size_of(file_name)), shape) if self.fit == "crop" else None


class _Shown(NamedTuple):
    """An item before its files are read."""

    key: str
    file_name: str
    text: str


def _nth(make: Callable[[_Shown], Any], shown: list[_Shown], index: int) -> Any:
    return make(shown[index])
