"""Hugging Face datasets: a folder (save_to_disk, Parquet, Arrow, ImageFolder) or an id of the hub, without scripts.

Columns are named by config. Splits called train, validation and test are used; a data set with one split is split by hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.hub import reachable
from ragaf_exp.data.fit import fit_drawing, fit_photo
from ragaf_exp.data.images import read_drawing, read_image
from ragaf_exp.data.lengths import shortened
from ragaf_exp.data.sources.metadata import SPLIT_FOLDERS
from ragaf_exp.data.sources.records import Record, RecordSource, check_aligned, root_folder

LAYOUT = "a folder that datasets.load_from_disk or load_dataset reads"


class HuggingFace(RecordSource):
    """Images with captions, and drawings if there is a column of them. Each caption of an image is a training item.

    Args:
        root: The folder; "" with `source`.
        source: Id of a data set on the hub, as owner/name; "" with `root`.
        config: Name of the data set's configuration; "" for its default.
        revision: Branch, tag or commit of `source`; "" for the newest.
        image: Column of the images.
        text: Column of the captions, strings or lists of strings.
        drawing: Column of line drawings; "" for none.
        size: Side of the square images, in pixels; of the buckets' square with `buckets`.
        fit: "crop" takes the central square, "pad" the whole image.
        polarity: Of the drawings: "auto", "dark" or "light" strokes.
        on_error: "raise" or "skip" for rows without an image or a caption.
        check: Decode every image at the start.
        val_share: Share of the rows for val, in [0, 1), without a split for it.
        test_share: Share of the rows for test, likewise.
        buckets: Fit each image to the size nearest its aspect instead of a square (see data.buckets).
        upscale: With buckets: enlarge images that are smaller than their bucket.
        crop_input: The networks get what is cut off each image as an input.

    Raises:
        UserError: A value is invalid, or the data set can't be loaded.
    """

    def __init__(
        self,
        root: str = "",
        source: str = "",
        config: str = "",
        revision: str = "",
        image: str = "image",
        text: str = "text",
        drawing: str = "",
        size: limits.Size = 256,
        fit: str = "crop",
        polarity: str = "auto",
        on_error: str = "raise",
        check: bool = False,
        val_share: limits.ShareBelowOne = 0.1,
        test_share: limits.ShareBelowOne = 0.1,
        buckets: bool = False,
        upscale: bool = False,
        crop_input: bool = False,
    ) -> None:
        if bool(root) == bool(source):
            raise UserError("data.root, data.source: give one of them, a folder or the id of a data set on the hub")
        loaded = _load_folder(root_folder(root, LAYOUT)) if root else _load_hub(source, config, revision)
        self.columns = {"image": image, "drawing": drawing}
        for key, column in {**self.columns, "text": text}.items():
            _check_column(loaded, key, column)
        self.tables = {name: _undecoded(table, [c for c in (image, drawing) if c]) for name, table in loaded.items()}
        records = [record for name, table in self.tables.items() for record in _records(name, table, text, len(loaded))]
        super().__init__(Path(root or source), records, size, fit, polarity, (), on_error, check, val_share, test_share,
                         buckets, upscale, crop_input)  # fmt: skip

    def read(self, record: Record) -> tuple[np.ndarray, np.ndarray | None]:
        """Read image (H, W, 3) uint8 and drawing (H, W) float32, or None, of a row. Raises UserError."""
        row = self._row(record)
        path, content = self._file(record, row[self.columns["image"]])
        image, size = read_image(path, content, self.side_of(record)), self.size_of(record)
        if not self.columns["drawing"]:
            return fit_photo(image, size, self.fit), None
        path, content = self._file(record, row[self.columns["drawing"]])
        drawing = read_drawing(path, self.polarity, content)
        check_aligned(image, drawing, record)
        return fit_photo(image, size, self.fit), fit_drawing(drawing, size, self.fit)

    def file_of(self, record: Record) -> tuple[Path, bytes | None]:
        """Return the path of a row's image, which names it in messages, and its bytes if they are in the table."""
        return self._file(record, self._row(record)[self.columns["image"]])

    def _row(self, record: Record) -> dict[str, Any]:
        return self.tables[record.key.rpartition("/")[0]][record.place]

    def _file(self, record: Record, value: Any) -> tuple[Path, bytes | None]:
        if not value:
            raise UserError(f"{self.root}: {record.key} has no image; set data.check=true data.on_error=skip")
        inside = self.root / record.key / (value.get("path") or "")
        return (inside, value["bytes"]) if value.get("bytes") else (Path(value["path"]), None)


def _load_folder(root: Path) -> dict[str, Any]:
    datasets = _library()
    saved = any((root / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        loaded = datasets.load_from_disk(str(root)) if saved else datasets.load_dataset(str(root))
    except Exception as error:  # of many types
        raise UserError(f"data.root={root}: is no data set ({_one_line(error)}); must be {LAYOUT}") from None
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _load_hub(source: str, config: str, revision: str) -> dict[str, Any]:
    datasets = _library()
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = offline or not reachable()  # else each file is retried for tens of seconds
    try:
        return dict(datasets.load_dataset(source, config or None, revision=revision or None))
    except Exception as error:  # of many types
        reason = f"can't be loaded ({_one_line(error)})"
        raise UserError(f"data.source={source}: {reason}; check the id and the network") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError("data=hf: needs the library datasets; pip install 'ragaf_exp[datasets]'") from None
    datasets.disable_progress_bars()
    return datasets


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _check_column(loaded: dict[str, Any], key: str, column: str) -> None:
    for name, table in loaded.items():
        if column and column not in table.column_names:
            known = ", ".join(table.column_names)
            raise UserError(f"data.{key}={column}: the split {name} has no such column; it has {known}")


def _undecoded(table: Any, columns: list[str]) -> Any:
    """Leave the decoding of images to this package, which checks them. Raises UserError for columns of another kind."""
    datasets = _library()
    for column in columns:
        if not isinstance(table.features[column], datasets.Image):
            raise UserError(f"data.image={column}: is a column of {type(table.features[column]).__name__}, not of images")
        table = table.cast_column(column, datasets.Image(decode=False))
    return table


def _records(name: str, table: Any, text: str, splits: int) -> list[Record]:
    """List the rows of a split.

    Args:
        name: The split's name.
        table: The rows.
        text: Column of the captions.
        splits: Number of splits of the data set; a single one is split by hash.
    """
    split = SPLIT_FOLDERS.get(name.lower(), "train") if splits > 1 else ""
    rows = [value if isinstance(value, list) else [value] for value in table[text]]
    whole = [all(isinstance(each, str) for each in row) and bool(row) for row in rows]
    texts = iter(shortened([each for row, good in zip(rows, whole, strict=True) if good for each in row], name))
    return [
        Record(
            f"{name}/{index}",
            f"{name}[{index}]",
            captions=tuple(" ".join(next(texts).split()) for _ in row) if good else (),
            split=split,
            problem="" if good else f"its {text} is no text",
            place=index,
        )
        for index, (row, good) in enumerate(zip(rows, whole, strict=True))
    ]
