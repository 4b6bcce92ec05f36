"""Users' edits from a table: images before and after, masks, captions; one row of a .csv, .jsonl, .tsv or .parquet each.

    target_image     the image as it should be (also called image or file_name)
    input_image      the image as it is given: with the object that goes, or under the wrong light
    mask             255 = hole, in any convention that data.masks.read knows
    object_image     the object that goes into the hole, in a picture of any size
    sketch_image     a drawing with colours on it: dark lines are the sketch, coloured marks the hints
    white_balance_params  optional: kelvin, tint, exposure and gamma of the wrong light, as 2800,0.02,0,1
    text             optional: a caption (also called prompt)

Paths are relative to the table's folder. Which columns a task needs: inpaint target_image (masks are generated where
there is no mask), remove input_image, mask and target_image, insert target_image, object_image and mask, white_balance
input_image and target_image, paint target_image and sketch_image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item
from ragaf_exp.data.fit import check_fit, fit_drawing, fit_image
from ragaf_exp.data.images import check_header, read_image
from ragaf_exp.data.lengths import shortened
from ragaf_exp.data.light import Light
from ragaf_exp.data.masks.read import HOLES, read_mask
from ragaf_exp.data.painting import fit_hints, split_painting
from ragaf_exp.data.sources.names import Names
from ragaf_exp.data.sources.tables import read_file
from ragaf_exp.data.split import check_shares, check_size, remark, split_id, split_lists

log = logging.getLogger(__name__)
TARGET, INPUT, MASK, TEXT = "target_image", "input_image", "mask", "text"
OBJECT, SKETCH, LIGHT = "object_image", "sketch_image", "white_balance_params"
ALIGNED = (TARGET, INPUT, MASK, SKETCH)  # columns whose images have one size
ALIASES = {"image": TARGET, "file_name": TARGET, "prompt": TEXT, "caption": TEXT}
SHOWN = 3  # bad rows named in a message


@dataclass(frozen=True)
class EditRow:
    """A row whose files are there."""

    number: int
    target: Path
    given: Path | None
    mask: Path | None
    text: str
    thing: Path | None = None
    sketch: Path | None = None
    light: Light | None = None

    @property
    def key(self) -> str:
        """The row's identity, by which it is assigned to a split."""
        files = (self.target, self.given, self.mask, self.thing, self.sketch)
        return "|".join(path.as_posix() for path in files if path is not None)


class Edits:
    """Edits named by a table.

    Args:
        table: The table.
        size: Side of the square images, in pixels.
        hole: Which pixels of the masks are the hole: auto, white, black, transparent or opaque.
        fit: "crop" takes the central square, "pad" the whole image.
        on_error: "raise" names bad rows, "skip" leaves them out and warns once.
        val_share: Share of rows for val, in [0, 1).
        test_share: Share of rows for test, in [0, 1).

    Raises:
        UserError: A value is invalid, or a row unusable.
    """

    def __init__(
        self, table: str = "", size: limits.Size = 64, hole: str = "auto", fit: str = "crop", on_error: str = "raise",
        val_share: limits.ShareBelowOne = 0.1, test_share: limits.ShareBelowOne = 0.1,
    ) -> None:  # fmt: skip
        if not table:
            raise UserError("data.table: none is given; set data.table=FILE, a .csv or .jsonl with target_image, and "
                            "input_image or mask where the task needs them")  # fmt: skip
        if on_error not in ("raise", "skip"):
            raise UserError(f"data.on_error={on_error}: must be raise or skip")
        if hole not in HOLES:
            raise UserError(f"data.hole={hole}: must be one of {', '.join(HOLES)}")
        check_size(size)
        check_fit(fit)
        check_shares(val_share, test_share)
        self.table, self.size, self.hole, self.fit = Path(table), size, hole, fit
        rows = self._usable(on_error)
        self._rows = {row.key: row for row in rows}
        self._splits, filled = split_lists(list(self._rows), val_share, test_share)
        if text := remark(self._splits, filled):
            log.warning("%s: %s", self.table, text)

    def split(self, name: str) -> Sequence[Item]:
        """Return the items of "train", "val" or "test", possibly none. Raises UserError for another name."""
        split_id(name)
        rows = [self._rows[key] for key in self._splits[name]]
        return LazyItems(partial(_nth, self._item, rows), len(rows), partial(_text_of, rows))

    def advice(self) -> str:
        """Advise how to fill an empty split."""
        return "raise data.val_share or data.test_share, or add rows"

    def _usable(self, on_error: str) -> list[EditRow]:
        """Read the rows, and leave out bad ones or raise UserError."""
        rows, problems = [], []
        records = read_file(self.table, TARGET)
        names = Names(self.table.parent)
        for number, record in enumerate(records, 1):
            try:
                if record.problem:
                    raise UserError(record.problem)
                rows.append(self._row(number, {ALIASES.get(k, k): v for k, v in record.values.items()}, names))
            except UserError as error:
                problems.append(f"row {number}: {error}")
        if not problems and rows:
            return rows
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        text = f"{self.table}: {len(problems)} of {len(records)} rows can't be used: {'; '.join(problems[:SHOWN])}{more}"
        if on_error == "raise" or not rows:
            raise UserError(f"{text}; {'fix them or set data.on_error=skip' if rows else 'no row is left; fix them'}")
        log.warning("%s; skipped (data.on_error=skip)", text)
        return rows

    def _row(self, number: int, values: dict[str, object], names: Names) -> EditRow:
        """Locate the files of a row and compare their sizes. Raises UserError."""
        paths: dict[str, Path | None] = {}
        for column in (*ALIGNED, OBJECT):
            name = values.get(column)
            if name is not None and not isinstance(name, str):
                raise UserError(f"its {column} is no text")
            paths[column] = self.table.parent / (names.find(name.strip()) or name.strip()) if name else None
        if (target := paths[TARGET]) is None:
            raise UserError(f"it has no {TARGET}; name the image as it should be")
        sizes = {path: check_header(path) for path in paths.values() if path is not None}
        for path, size in ((path, sizes[path]) for column in ALIGNED if (path := paths[column]) is not None):
            if size != sizes[target]:
                raise UserError(f"{path} is {size[0]}x{size[1]}, and {target} is {sizes[target][0]}x{sizes[target][1]}; "
                                "give them one size")  # fmt: skip
        (text,) = shortened([str(values.get(TEXT) or "")], self.table)
        light = Light.read(values[LIGHT], LIGHT) if values.get(LIGHT) else None
        return EditRow(number, target, paths[INPUT], paths[MASK], " ".join(text.split()), paths[OBJECT], paths[SKETCH],
                       light)  # fmt: skip

    def _item(self, row: EditRow) -> Item:
        conditions, drawing = {}, None
        if row.given is not None:
            conditions["given"] = fit_image(read_image(row.given), self.size, self.fit)
        if row.mask is not None:
            hole = np.repeat(np.uint8(255) * read_mask(row.mask, self.hole).hole[..., None], 3, axis=2)
            conditions["hole"] = (fit_image(hole, self.size, self.fit, "edge")[..., 0] > 0).astype(np.float32)
        if row.thing is not None:
            conditions["object"] = fit_image(read_image(row.thing), self.size, "pad")
        if row.sketch is not None:
            drawing, *marks = split_painting(read_image(row.sketch))
            drawing = fit_drawing(drawing, self.size, self.fit)
            conditions["hints"], conditions["hinted"] = fit_hints(*marks, self.size, self.fit)
        if row.light is not None:
            conditions["light"] = row.light.parameters()
        image = fit_image(read_image(row.target), self.size, self.fit)
        return Item(row.key, image, row.text, drawing, conditions=conditions)


def _nth(make: Callable[[EditRow], Item], rows: list[EditRow], index: int) -> Item:
    return make(rows[index])


def _text_of(rows: list[EditRow], index: int) -> str:
    return rows[index].text
