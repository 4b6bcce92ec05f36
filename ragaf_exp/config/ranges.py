"""Ranges of config values: what a field of a schema, or a parameter of a constructor, is annotated with."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ragaf_exp.core.errors import UserError


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included unless `above` (low is out) or `below` (high is out)."""

    low: float
    high: float
    reason: str
    above: bool = False
    below: bool = False

    def check(self, key: str, value: float) -> None:
        """UserError unless the value lies in the range; NaN lies in none."""
        over = self.low < value if self.above else self.low <= value
        under = value < self.high if self.below else value <= self.high
        if not (over and under):
            raise UserError(f"{key}={value}: must be {self} ({self.reason})")

    def __str__(self) -> str:
        start = f"above {_number(self.low)} and at most" if self.above else f"from {_number(self.low)} to"
        return f"{start} {'below ' if self.below else ''}{_number(self.high)}"


@dataclass(frozen=True)
class OneOf:
    """One of the names that are known."""

    names: tuple[str, ...]

    def check(self, key: str, value: str) -> None:
        """UserError unless the value is one of the names."""
        if value not in self.names:
            raise UserError(f"{key}={value}: must be one of {', '.join(self.names)}")


@dataclass(frozen=True)
class Length:
    """Lists of `low` to `high` values; distinct: none of them twice."""

    low: int
    high: int
    example: str
    distinct: bool = False

    def check(self, key: str, value: list) -> None:
        """UserError unless the list has as many values."""
        if not self.low <= len(value) <= self.high:
            wanted = f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"
            raise UserError(f"{key}={list(value)}: must hold {wanted} values, as {self.example}")
        if self.distinct and len(set(value)) < len(value):
            raise UserError(f"{key}={list(value)}: holds a value twice; take {self.example}")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def check(schema: type, values: Mapping[str, Any], key: str) -> None:
    """Check every value of a dataclass's fields.

    Args:
        schema: the dataclass, its fields annotated with the quantities here.
        values: field -> value, of the right types.
        key: the group's key in the config, for messages.

    Raises:
        UserError: naming the key, its range and the reason.
    """
    for name, kind in kinds(schema).items():
        check_value(kind, values[name], f"{key}.{name}" if key else name)


def kinds(schema: type) -> dict[str, Any]:
    """Field -> type of a dataclass, with what it is annotated with."""
    return typing.get_type_hints(schema, include_extras=True)


def check_value(kind: Any, value: Any, key: str) -> None:
    """Check one value against the type it is annotated with; None, where allowed, has no range."""
    if value is None:
        return
    if plain(kind) in (int, float, str) and not isinstance(value, int | float | str):  # OmegaConf lets [[1]] pass
        raise UserError(f"{key}={value}: must be of type {plain(kind).__name__}")
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
    """The type itself, without what it is annotated with."""
    return kind.__origin__ if hasattr(kind, "__metadata__") else kind


def limit_of(kind: Any) -> Range | OneOf | None:
    """The range, or the names, of a number or a name; of a list those of its elements."""
    found = [limit for limit in getattr(kind, "__metadata__", ()) if not isinstance(limit, Length)]
    if found or typing.get_origin(plain(kind)) is not list:
        return found[0] if found else None
    return limit_of(plain(kind).__args__[0])
