"""Reading of large JSON files object by object: of an array at the top level, without parsing the file as a whole.

COCO's instances_train2017.json has 450 MB, and would take more than 2 GB as Python objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ragaf_exp.core.errors import UserError

CHUNK = 1 << 22  # bytes decoded at a time
LONGEST_KEY = 64  # bytes of an array's name with the marks around it
BETWEEN = re.compile(r"[\s,]*")
DECODE = json.JSONDecoder().raw_decode


def array_items(path: Path, name: str) -> Iterator[tuple[int, int, Any]]:
    """Yield (offset, length in bytes, value) of each element of the array `name` in a file; none if there is no array.

    Raises UserError if the file is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            start = _start_of(file, name)
            if start is not None:
                yield from _elements(file, start, path)
            else:
                file.seek(0)
                if file.read(1) != b"{":
                    raise UserError(_damaged(path))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); check the path") from None


def _start_of(file: BinaryIO, name: str) -> int | None:
    """Locate the first element of an array: the position after its bracket. None without such an array."""
    opening = re.compile(rb'"%s"\s*:\s*\[' % name.encode())
    position, before = 0, b""
    while chunk := file.read(CHUNK):
        text = before + chunk
        if match := opening.search(text):
            return position - len(before) + match.end()
        position += len(chunk)
        before = text[-LONGEST_KEY:]
    return None


def _elements(file: BinaryIO, position: int, path: Path) -> Iterator[tuple[int, int, Any]]:
    size = CHUNK
    while True:
        file.seek(position)
        text = file.read(size).decode("latin-1")  # one character per byte
        index, whole = 0, len(text) < size
        while True:
            index = BETWEEN.match(text, index).end()
            if text[index : index + 1] == "]":
                return
            try:
                value, end = DECODE(text, index)
            except json.JSONDecodeError:
                break
            yield position + index, end - index, value
            index = end
        if whole:
            raise UserError(_damaged(path))
        size = CHUNK if index else 2 * size  # an element may be longer than a chunk
        position += index


def as_utf8(text: str) -> str:
    """Convert a string of `array_items`, whose characters are bytes, to the text that it stands for."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:  # written with \\u escapes
        return text


def _damaged(path: Path) -> str:
    return f"{path}: is damaged or cut short, or no JSON object; fetch it again"
