"""Reading of tables in data sets: JSON lines, values separated by comma, semicolon or tab, or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ragaf_exp.core.errors import UserError

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True)
class Record:
    """One row of a table."""

    values: dict[str, Any]  # by column
    problem: str = ""  # what makes the row unusable; "" for a valid one


def read_file(path: Path, column: str) -> list[Record]:
    """Read the rows of a table, which should have `column`. Raises UserError if it can't be read at all."""
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_jsonl(file, path) if path.suffix == ".jsonl" else _separated(file.read(), column))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: is not a table of comma-separated values ({error}); fix it") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); fix that") from None


def _separated(text: str, column: str) -> Iterator[Record]:
    separator = _separator(io.StringIO(text, newline="").readline(), column)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns = [name.strip() for name in next(rows, [])]
    for row in rows:
        if row:
            values = _trimmed(row, len(columns))
            yield Record(dict(zip(columns, values, strict=False)), _miscounted(values, columns, separator))


def _separator(head: str, column: str) -> str:
    """Choose the separator by which the header has the expected column, or else the most columns."""
    names = {mark: [name.strip() for name in next(csv.reader([head], delimiter=mark), [])] for mark in SEPARATORS}
    return max(SEPARATORS, key=lambda mark: (column in names[mark], len(names[mark])))


def _trimmed(row: list[str], count: int) -> list[str]:
    """Remove the empty values beyond the last column that spreadsheets write."""
    while len(row) > count and not row[-1].strip():
        row = row[:-1]
    return row


def _miscounted(values: list[str], columns: list[str], separator: str) -> str:
    """Describe a row whose length differs from the header's, with the remedy; "" if it does not."""
    if len(values) == len(columns):
        return ""
    number = f"{len(values)} value{'s' * (len(values) != 1)} for {len(columns)} columns ({', '.join(columns)})"
    if len(values) > len(columns):
        return f'it has {number}; put a value that holds a {SEPARATORS[separator]} in "double quotes"'
    return f'it has {number}; add the missing ones, an empty one as ""'


def _jsonl(file: TextIO, path: Path) -> Iterator[Record]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{path}: line {number} is not JSON{_layout(line)}") from None
        if not isinstance(record, dict):
            hint = _layout(line) if isinstance(record, list) else "; write file_name and text in braces"
            raise UserError(f"{path}: line {number} is not a JSON object{hint}")
        yield Record(record)


def _layout(line: str) -> str:
    """Suggest a remedy for a line of a file that is probably JSON as a whole."""
    if line.lstrip().startswith("["):
        return ", but begins an array; write one object per line, without the array's brackets and commas (jq -c '.[]')"
    if line.strip() == "{":
        return ", but begins an object; write each object on one line (jq -c .)"
    return "; fix or delete it"


def _parquet(path: Path) -> list[Record]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f"{path}: needs the package pyarrow; pip install pyarrow, or save it as .jsonl") from None
    try:
        return [Record(row) for row in parquet.read_table(path).to_pylist()]
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: can't be read as Parquet ({reason}); write it again") from None
