"""Reading of large JSON files object by object: of an array at the top level, without parsing the file as a whole.

COCO's instances_train2017.json has 450 MB, and would take more than 2 GB as Python objects.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragaf_exp.core.errors import UserError

CHUNK = 1 << 22  # bytes decoded at a time
BETWEEN = re.compile(r"[\s,]*")
DECODE = json.JSONDecoder().raw_decode


def array_items(path: Path, name: str) -> Iterator[tuple[int, int, Any]]:
    """Yield (offset, length in bytes, value) of each element of the array `name` in a file; none if there is no array.

    Raises UserError if the file is missing or damaged.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = re.search(rb'"%s"\s*:\s*\[' % name.encode(), content)
            if start:
                yield from _elements(content, start.end(), path)
            elif content[:1] != b"{":
                raise UserError(_damaged(path))
    except ValueError:  # an empty file can't be mapped
        raise UserError(_damaged(path)) from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); check the path") from None


def element_at(content: mmap.mmap, offset: int, length: int) -> Any:
    """Parse one element of a mapped file.

    Args:
        content: The file.
        offset: As `array_items` gave it, in bytes.
        length: Likewise.
    """
    return json.loads(content[offset : offset + length])


def _elements(content: mmap.mmap, position: int, path: Path) -> Iterator[tuple[int, int, Any]]:
    size = CHUNK
    while True:
        text = content[position : position + size].decode("latin-1")  # one character per byte
        index, whole = 0, position + len(text) >= len(content)
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
