"""Rows of an ImageFolder's metadata.jsonl or metadata.csv."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ragaf_exp.data.lengths import shortened
from ragaf_exp.errors import UserError

NAMES = ("metadata.jsonl", "metadata.csv")


@dataclass(frozen=True)
class Row:
    """One row; `problem` says what makes it unusable, "" for a sound one."""

    number: int  # from 1, the header not counted
    file_name: str
    text: str
    problem: str = ""


def read_rows(root: Path, text_column: str = "text") -> list[Row]:
    """The rows of the metadata file in a folder. Raises UserError where there is none, or nothing to read in
    it.
    """
    path = find_metadata(root)
    records = _records(path)
    if not records:
        raise UserError(f"{path}: holds no rows; write one for each image, with file_name and {text_column}")
    known = _columns(records)
    for column, mend in (("file_name", "name it so"), (text_column, "name it so, or set data.text_column")):
        if column not in known:
            raise UserError(f"{path}: has no column {column} (it has: {', '.join(known) or 'none'}); {mend}")
    rows = [_row(i, record, text_column, path) for i, record in enumerate(records, 1)]
    texts = shortened([row.text for row in rows], path)
    return [replace(row, text=text) for row, text in zip(rows, texts, strict=True)]


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """These columns of the rows of a .csv or .jsonl file; they are strings. Raises UserError."""
    return [{column: record[column] for column in columns} for record in read_records(path, columns)]


def read_records(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a .csv or .jsonl file, of which these columns are strings. Raises UserError."""
    if path.suffix not in (".csv", ".jsonl"):
        raise UserError(f"{path}: must be a .csv or .jsonl file, with {' and '.join(columns)}")
    records = _records(path)
    if not records:
        raise UserError(f"{path}: holds no rows; write one for each image, with {' and '.join(columns)}")
    known = _columns(records)
    for column in columns:
        if column not in known:
            raise UserError(f"{path}: has no column {column} (it has: {', '.join(known) or 'none'}); name it so")
    for number, record in enumerate(records, 1):
        for column in columns:
            if not isinstance(record.get(column), str):
                raise UserError(f"{path}: row {number}: its {column} is missing or no text; write one")
    return records


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_csv(file) if path.suffix == ".csv" else _jsonl(file, path))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: is not a table of comma-separated values ({error}); mend it") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); mend that") from None


def _columns(records: list[dict[str, Any]]) -> list[str]:
    """Their keys, in the order of their first appearance."""
    return list(dict.fromkeys(key for record in records for key in record if key))


def find_metadata(root: Path) -> Path:
    """The one metadata file of a folder. Raises UserError."""
    if not root.is_dir():
        raise UserError(
            f"data.root={root}: {'is not a folder' if root.exists() else 'no such folder'}; check the path"
        )
    found = [root / name for name in NAMES if (root / name).is_file()]
    if not found:
        raise UserError(
            f"data.root={root}: no metadata.jsonl or metadata.csv in it; write one (file_name, text)"
        )
    if len(found) > 1:
        raise UserError(f"data.root={root}: both metadata.jsonl and metadata.csv are there; keep one")
    return found[0]


def _csv(file: Any) -> Iterator[dict[str, Any]]:
    yield from csv.DictReader(file, strict=True)


def _jsonl(file: Any, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{path}: line {number} is not JSON; mend or delete it") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}: line {number} is not a JSON object; write file_name and text in braces")
        yield record


def _row(number: int, record: dict[str, Any], text_column: str, path: Path) -> Row:
    name, text = record.get("file_name"), record.get(text_column)
    if not isinstance(name, str) or not name.strip():
        return Row(number, "", "", "it has no file_name")
    name = os.path.normpath(name.strip())
    if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir or "\0" in name:
        raise UserError(
            f"{path}: row {number}: file_name {name!r} leads out of the folder; move the image into it"
        )
    if not isinstance(text, str):
        return Row(number, name, "", f'{name}: it has no {text_column} (an empty caption is "")')
    return Row(number, name, " ".join(text.split()))
