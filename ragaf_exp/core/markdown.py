"""Tables in Markdown of GitHub's flavour."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1) -> str:
    """A table, without a line's end after the last row. Cells are written as they are: see `escape`.

    Args:
        header: titles of the columns.
        rows: cells of each row, as many as titles.
        text: how many columns, from the left, hold text; those after them hold figures and are aligned right.
    """
    rule = ["---" if i < text else "--:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def bullets(lines: Iterable[str]) -> str:
    """A list of plain lines."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def escape(text: str) -> str:
    """Text that Markdown and the HTML in it show as it is."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|~#$])", r"\\\1", text)
