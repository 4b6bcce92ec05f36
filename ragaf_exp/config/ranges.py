"""Ranges of config values, as annotations of schema fields and constructor parameters."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ragaf_exp.core.errors import UserError

SHOWN = 200  # characters of a refused value


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included unless `above` (excludes low) or `below` (excludes high)."""

    low: float
    high: float
    reason: str
    above: bool = False
    below: bool = False

    def check(self, key: str, value: float) -> None:
        """Raise UserError unless the value lies in the range; NaN never does."""
        above_low = self.low < value if self.above else self.low <= value
        below_high = value < self.high if self.below else value <= self.high
        if not (above_low and below_high):
            raise UserError(f"{key}={value}: must be {self} ({self.reason})")

    def __str__(self) -> str:
        start = f"above {_number(self.low)} and at most" if self.above else f"from {_number(self.low)} to"
        return f"{start} {'below ' if self.below else ''}{_number(self.high)}"


@dataclass(frozen=True)
class OneOf:
    """One of a set of names."""

    names: tuple[str, ...]

    def check(self, key: str, value: str) -> None:
        """Raise UserError unless the value is one of the names."""
        if value not in self.names:
            raise UserError(f"{key}={_start(value)}: must be one of {', '.join(self.names)}")


@dataclass(frozen=True)
class Length:
    """Lists of `low` to `high` values, with `distinct` no value twice; `example` is a valid one, for messages."""

    low: int
    high: int
    example: str
    distinct: bool = False

    def check(self, key: str, value: list) -> None:
        """Raise UserError unless the list has an allowed length, and distinct values where required."""
        if not self.low <= len(value) <= self.high:
            count = f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"
            raise UserError(f"{key}={_start(list(value))}: must hold {count} values, as {self.example}")
        if self.distinct and len(set(value)) < len(value):
            raise UserError(f"{key}={_start(list(value))}: holds a value twice; take {self.example}")


def _start(value: object) -> str:
    """Return the start of a value that may be long, for messages."""
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def check(schema: type, values: Mapping[str, Any], key: str) -> None:
    """Check all values of a dataclass against the ranges of its fields.

    Args:
        schema: The dataclass, its fields annotated with ranges.
        values: Field -> value, of the right types.
        key: The group's key in the config, for messages.

    Raises:
        UserError: A value is out of range; the message names the key, the range and the reason.
    """
    for name, kind in kinds(schema).items():
        check_value(kind, values[name], f"{key}.{name}" if key else name)


def kinds(schema: type) -> dict[str, Any]:
    """Return field -> type of a dataclass, annotations included."""
    return typing.get_type_hints(schema, include_extras=True)


def check_value(kind: Any, value: Any, key: str) -> None:
    """Check one value against its annotated type; None, where allowed, has no range.

    Args:
        kind: The type, perhaps annotated with ranges.
        value: The value.
        key: Its full key in the config, for messages.

    Raises:
        UserError: The value is out of range or of another type.
    """
    if value is None:
        return
    if plain(kind) in (int, float, str) and not isinstance(value, int | float | str):  # OmegaConf lets [[1]] pass
        raise UserError(f"{key}={_start(value)}: must be of type {plain(kind).__name__}")
    if isinstance(value, str) and "\0" in value:  # no file may have such a name
        raise UserError(f"{key}: holds a NUL character; remove it")
    inner = plain(kind)
    if dataclasses.is_dataclass(inner):
        check(inner, value, key)
    elif isinstance(inner, types.UnionType):
        check_value(inner.__args__[0], value, key)
    elif typing.get_origin(inner) is list:
        for index, element in enumerate(value):
            check_value(inner.__args__[0], element, f"{key}[{index}]")
    for limit in getattr(kind, "__metadata__", ()):
        limit.check(key, value)


def plain(kind: Any) -> Any:
    """Strip the annotations from a type."""
    return kind.__origin__ if hasattr(kind, "__metadata__") else kind


def limit_of(kind: Any) -> Range | OneOf | None:
    """Return the range of a number or the choices of a name; for a list, those of its elements."""
    limits = [limit for limit in getattr(kind, "__metadata__", ()) if not isinstance(limit, Length)]
    if limits or typing.get_origin(plain(kind)) is not list:
        return limits[0] if limits else None
    return limit_of(plain(kind).__args__[0])
