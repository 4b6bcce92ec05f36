"""Reading of an ImageFolder's metadata.jsonl, .csv, .tsv or .parquet, in the folder or one level down."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.lengths import shortened
from ragaf_exp.data.listing import visible
from ragaf_exp.data.sources.names import Names, normal
from ragaf_exp.data.sources.tables import SUFFIXES, Record, read_file

NAMES = tuple("metadata" + suffix for suffix in SUFFIXES)
SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of the metadata."""

    number: int  # from 1, without the header
    file_name: str  # relative to the root, NFC, with slashes: the item's identity on every system
    texts: tuple[str, ...] = ()  # captions, at least one if there is no problem
    problem: str = ""  # what makes it unusable; "" for a valid row
    path: str = ""  # relative to the root, as on disk
    split: str = ""  # train, val or test if the metadata's folder is named so, else ""
    source: str = ""  # the metadata file, for messages, if there are several

    @property
    def label(self) -> str:
        """Name of the row in messages."""
        return f"{self.source}: row {self.number}" if self.source else f"row {self.number}"


def read_rows(root: Path, text_column: str = "text") -> list[Row]:
    """Read the metadata file of a folder, or those of its subfolders.

    Raises UserError if there is none, one is empty, or an image is in two splits.
    """
    paths = find_metadata(root)
    names = Names(root)
    rows = [row for path in paths for row in _rows_of(path, root, text_column, names, len(paths) > 1)]
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row.file_name, row)
        if row.file_name and other.split != row.split:
            raise UserError(f"{root}: {row.file_name} is named by {other.label} and by {row.label}; leave it in one split")
        if row.file_name and other.path != row.path:
            raise UserError(f"{root}: two files are called {row.file_name}, in different Unicode normal forms; rename one")
    return rows


def _rows_of(path: Path, root: Path, text_column: str, names: Names, several: bool) -> list[Row]:
    records = read_file(path, "file_name")
    if not records:
        raise UserError(f"{path}: holds no rows; write one for each image, with file_name and {text_column}")
    known = _columns(records)
    for column, remedy in (("file_name", "name it so"), (text_column, "name it so, or set data.text_column")):
        if column not in known:
            raise UserError(f"{path}: has no column {column} (it has: {', '.join(known) or 'none'}); {remedy}")
    folder = "" if path.parent == root else path.parent.name
    fixed = {"split": SPLIT_FOLDERS.get(folder.lower(), ""), "source": f"{folder}/{path.name}" if several else ""}
    rows = [_row(number, record, text_column, path, folder, names, fixed) for number, record in enumerate(records, 1)]
    texts = iter(shortened([text for row in rows for text in row.texts], path))
    return [replace(row, texts=tuple(next(texts) for _ in row.texts)) for row in rows]


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read these columns of a table, all strings. Raises UserError."""
    return [{column: record[column] for column in columns} for record in read_records(path, columns)]


def read_records(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read a .jsonl, .csv, .tsv or .parquet file, of which these columns must be strings. Raises UserError."""
    return [record for _, record in numbered_records(path, columns)]


def numbered_records(
    path: Path, columns: tuple[str, ...], skipped: list[str] | None = None
) -> list[tuple[int, dict[str, Any]]]:  # fmt: skip
    """Read the rows of a table with their numbers.

    Args:
        path: The file, .jsonl, .csv, .tsv or .parquet.
        columns: Columns that must be strings in every row.
        skipped: If given, unusable rows are omitted, and the reasons are appended to it.

    Returns:
        Number, from 1, and values of each row.

    Raises:
        UserError: The file can't be read, lacks a column or has, without `skipped`, an unusable row.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: must be a .csv or .jsonl file, with {' and '.join(columns)}")
    records = read_file(path, columns[0])
    if not records:
        raise UserError(f"{path}: holds no rows; write one for each image, with {' and '.join(columns)}")
    known = _columns(records)
    for column in columns:
        if column not in known:
            raise UserError(f"{path}: has no column {column} (it has: {', '.join(known) or 'none'}); name it so")
    usable = []
    for number, record in enumerate(records, 1):
        if not (reason := record.problem or _not_text(record.values, columns)):
            usable.append((number, record.values))
        elif skipped is None:
            raise UserError(f"{path}: row {number}: {reason}")
        else:
            skipped.append(f"row {number}: {reason}")
    return usable


def _not_text(values: dict[str, Any], columns: tuple[str, ...]) -> str:
    """Describe the first of the columns that is not a string; "" if all are."""
    for column in columns:
        if not isinstance(value := values.get(column), str):
            state = f"is a list of {len(value)}" if isinstance(value, list) else "is missing or no text"
            return f"its {column} {state}; write one"
    return ""


def _columns(records: list[Record]) -> list[str]:
    """List the records' keys in the order of first appearance."""
    return list(dict.fromkeys(key for record in records for key in record.values if key))


def find_metadata(root: Path) -> list[Path]:
    """Locate the metadata file of a folder, or if it has none, those of its subfolders. Raises UserError."""
    if not root.is_dir():
        raise UserError(f"data.root={root}: {'is not a folder' if root.exists() else 'no such folder'}; check the path")
    if own := _metadata_in(root):
        return own
    below = [path for folder in visible(root.iterdir()) if folder.is_dir() for path in _metadata_in(folder)]
    if not below:
        raise UserError(f"data.root={root}: no metadata.jsonl or metadata.csv in it (nor .tsv, .parquet), nor one level "
                        "down; write one (file_name, text)")  # fmt: skip
    return below


def _metadata_in(folder: Path) -> list[Path]:
    paths = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(paths) > 1:
        raise UserError(f"data.root={folder}: both {paths[0].name} and {paths[1].name} are there; keep one")
    return paths


def _row(
    number: int, record: Record, text_column: str, path: Path, folder: str, names: Names, fixed: dict[str, str]
) -> Row:  # fmt: skip
    name, text = record.values.get("file_name"), record.values.get(text_column)
    if not isinstance(name, str) or not name.strip():
        return Row(number, "", problem=record.problem or "it has no file_name", **fixed)
    name = os.path.normpath(os.path.join(folder, name.strip()))
    if _leads_out(name) or _leads_out(normal(name)):
        raise UserError(f"{path}: row {number}: file_name {name!r} leads out of the folder; move the image into it")
    on_disk = names.find(name)
    location = {"file_name": normal(on_disk or name), "path": on_disk or name, **fixed}
    texts = text if isinstance(text, list) else [text]
    if record.problem:
        return Row(number, problem=f"{name}: {record.problem}", **location)
    if not texts or not all(isinstance(each, str) for each in texts):
        return Row(number, problem=f'{name}: it has no {text_column} (an empty caption is "")', **location)
    if on_disk is None and (hint := names.hint(name)):
        return Row(number, problem=f"{names.root / name}: no such file{hint}; name the one that is meant", **location)
    return Row(number, texts=tuple(" ".join(each.split()) for each in texts), **location)


def _leads_out(name: str) -> bool:
    """Whether a name leads out of the folder that it is relative to, or is not relative."""
    return os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir or "\0" in name
