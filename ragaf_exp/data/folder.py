"""A folder of one's own images: the Hugging Face ImageFolder convention, with paired drawings where there are
some.

    root/metadata.jsonl or metadata.csv   rows with file_name (relative to root) and text
    root/photo.jpg ...                    the images, in subfolders if wanted
    drawings/photo.png ...                optional: a drawing for each image, same path but for the suffix
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from ragaf_exp.data.fit import check_fit
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
from ragaf_exp.data.metadata import Row, read_rows
from ragaf_exp.data.split import LazyItems, check_shares, check_size, split_names
from ragaf_exp.errors import UserError
from ragaf_exp.types import Item

log = logging.getLogger(__name__)
SHOWN = 3  # bad rows named in a message


class Folder:
    """Images with captions from a folder; the split hangs on each image's file name alone.

    root: the folder. size: side of the square images. drawings: folder of line drawings, looked for under
    root first; "" extracts sketches from the images instead. text_column: the captions' column; an empty
    caption is allowed. on_error: what rows whose files are missing or unreadable do: "raise" names them,
    "skip" counts them in `.skipped` and warns once. fit: "crop" takes the central square, "pad" the whole
    image. polarity: of the drawings ("auto", "dark", "light"). check: decode every file at the start instead
    of reading headers only. cache_mb: how much memory the fitted images may take, in MiB, so that each is
    decoded once. Raises UserError for bad values or files.
    """

    def __init__(
        self,
        root: str = "",
        size: int = 64,
        drawings: str = "",
        text_column: str = "text",
        on_error: str = "raise",
        fit: str = "crop",
        polarity: str = "auto",
        val_share: float = 0.1,
        test_share: float = 0.1,
        check: bool = True,
        cache_mb: int = 512,
    ) -> None:
        if not root:
            raise UserError(
                "data.root: no folder is given; set data.root=DIR, with images and metadata.jsonl in it"
            )
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
        self._drawings = self._find_drawings(drawings) if drawings else None
        self._shares = (val_share, test_share)
        self._cache: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
        self._room = cache_mb * 2**20 // (size * size * (7 if drawings else 3))
        self._strokes: dict[str | Path, float] = {}  # share of each drawing that was decoded
        self._rows, self.skipped = self._usable(read_rows(self.root, text_column), on_error, check)
        warn_of_odd(self._strokes)

    def split(self, name: str) -> Sequence[Item]:
        """The items of "train", "val" or "test", possibly none. Raises UserError for another name."""
        chosen = set(split_names({row.file_name for row in self._rows}, name, *self._shares))
        rows = [row for row in self._rows if row.file_name in chosen]
        return LazyItems(partial(_nth, self._item, rows), len(rows), partial(_nth, attrgetter("text"), rows))

    def _find_drawings(self, drawings: str) -> Path:
        for folder in (self.root / drawings, Path(drawings)):
            if folder.is_dir():
                return folder
        raise UserError(f"data.drawings={drawings}: no such folder, neither under {self.root} nor by itself")

    def _drawing_path(self, file_name: str) -> Path | None:
        if self._drawings is None:
            return None
        stem = self._drawings / Path(file_name).with_suffix("")
        for suffix in SUFFIXES:
            for path in (stem.with_name(stem.name + suffix), stem.with_name(stem.name + suffix.upper())):
                if path.is_file():
                    return path
        raise UserError(f"{stem}.*: no drawing of that name for {file_name}; add it")

    def _usable(self, rows: list[Row], on_error: str, check: bool) -> tuple[list[Row], int]:
        """The rows whose files are sound, and how many are not."""
        names = list(dict.fromkeys(row.file_name for row in rows if not row.problem))
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            faults = dict(zip(names, pool.map(partial(self._fault, check), names), strict=True))
        problems = [
            f"row {row.number}: {row.problem or faults[row.file_name]}"
            for row in rows
            if row.problem or faults[row.file_name]
        ]
        good = [row for row in rows if not row.problem and not faults[row.file_name]]
        if not problems:
            return good, 0
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        shown = "; ".join(problems[:SHOWN]) + more
        text = f"{self.root}: {len(problems)} of {len(rows)} rows can't be used: {shown}"
        if on_error == "raise" or not good:
            mend = "mend them or set data.on_error=skip" if good else "no row is left; mend them"
            raise UserError(f"{text}; {mend}")
        log.warning("%s; skipped (data.on_error=skip)", text)
        return good, len(problems)

    def _fault(self, check: bool, file_name: str) -> str:
        """What is wrong with a row's files, or nothing."""
        try:
            if check:
                self._load(file_name)
            else:
                check_header(self.root / file_name)
                if drawing := self._drawing_path(file_name):
                    check_header(drawing)
        except UserError as error:
            return str(error)
        return ""

    def _load(self, file_name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """The fitted image, and its drawing where there are drawings."""
        if file_name in self._cache:
            return self._cache[file_name]
        image, path = read_image(self.root / file_name), self._drawing_path(file_name)
        drawing = None
        if path is not None:
            drawing = read_drawing(path, self.polarity)
            if abs(np.log(drawing.shape[0] * image.shape[1] / drawing.shape[1] / image.shape[0])) > 0.1:
                raise UserError(
                    f"{path}: its aspect differs from that of {file_name}, so they don't line up; redo it"
                )
            self._strokes[path] = stroke_share(drawing)
            drawing = fit_drawing(drawing, self.size, self.fit)
        pair = fit_image(image, self.size, self.fit), drawing
        if len(self._cache) < self._room:
            self._cache[file_name] = pair
        return pair

    def _item(self, row: Row) -> Item:
        image, drawing = self._load(row.file_name)
        return Item(f"{row.file_name}#{row.number}", image, row.text, drawing)


def _nth(make: Callable[[Row], Any], rows: list[Row], index: int) -> Any:
    return make(rows[index])
