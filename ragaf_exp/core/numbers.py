"""Numbers in the values of command lines and tables."""

from __future__ import annotations

from typing import Any


def numbers_of(value: Any) -> tuple[float, ...]:
    """Return the numbers of a text with commas, as 1,2 or [1, 2], or of a list. Raises TypeError or ValueError."""
    return tuple(float(one) for one in (value.strip("[]() ").split(",") if isinstance(value, str) else value))
