"""Odd values for every key of a config: far outside its range, just outside, at its ends, and of other types."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_args, get_origin

import yaml

from ragaf_exp.config.build import locate
from ragaf_exp.config.compose import CONF
from ragaf_exp.config.ranges import OneOf, Range, kinds, limit_of, plain
from ragaf_exp.config.schema import NESTED, PLAIN, SCALARS
from ragaf_exp.config.validate import constructor_schema

NUMBERS = [-2_000_000_000, -1, 0, 1, 3, 2_000_000_000, 2**63, 10**30, -1e30, 1e-30, 1e30, math.nan, math.inf, -math.inf]
TEXTS = ["", "$HOME", "nowhere", "../..", "\x00", "é" * 3_000, "null", "1e-4", "-1"]
OTHERS: list[Any] = [None, True, [], {}, [[]], {"_target_": "os.system"}, "text", 0.5]


class Odd(NamedTuple):
    """One value of one key. option: the group's option that has the key, "" for one of a plain group."""

    option: str
    key: str
    value: Any

    def __str__(self) -> str:
        return f"{self.option + ' ' if self.option else ''}{self.key}={str(self.value)[:40]!r}"


def fields() -> dict[tuple[str, str], Any]:
    """(option, key) -> type with its range: of every plain group, and of one option for every constructor."""
    types = {("", key): kind for key, kind in SCALARS.items()}
    for group, schema in PLAIN.items():
        types |= {("", key): kind for key, kind in nested(schema, group).items()}
    for option, target in targets().items():
        group = {folder: key for key, folder in NESTED.items()}.get(option.split("=")[0], option.split("=")[0])
        schema = constructor_schema(locate(target, group))
        types |= {(option, key): kind for key, kind in nested(schema, group).items()}
    return types


def nested(schema: type, prefix: str) -> dict[str, Any]:
    """Dotted key -> type of every field of a dataclass, and of the dataclasses in it."""
    types: dict[str, Any] = {}
    for name, kind in kinds(schema).items():
        inner = isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")
        types |= nested(kind, f"{prefix}.{name}") if inner else {f"{prefix}.{name}": kind}
    return types


def targets() -> dict[str, str]:
    """`group=option` -> constructor, an option for each."""
    options: dict[str, str] = {}
    for path in sorted(CONF.glob("*/**/*.yaml")):
        content = yaml.safe_load(path.read_text())
        if "hydra" not in path.parts and isinstance(content, dict) and "_target_" in content:
            options.setdefault(content["_target_"], f"{path.parent.relative_to(CONF).as_posix()}={path.stem}")
    return {option: target for target, option in options.items()}


def is_number(kind: Any) -> bool:
    """Whether values of a type are numbers, or lists of them."""
    inner = plain(kind)
    if get_origin(inner) is list:
        return is_number(get_args(inner)[0])
    return inner in (int, float)


def odd_values(kind: Any) -> list[Any]:
    """The odd values for one key."""
    single = NUMBERS if is_number(kind) else TEXTS
    single = [*single, *_ends(limit_of(kind))]
    if get_origin(plain(kind)) is list:
        single = [[value] * count for value in single for count in (1, 2, 100)]
    return [*single, *OTHERS]


def _ends(limit: Range | OneOf | None) -> list[Any]:
    """The ends of a range and what lies just beyond them; every name that is known."""
    if isinstance(limit, OneOf):
        return [*limit.names, limit.names[0].upper()]
    if limit is None:
        return []
    step = 1 if isinstance(limit.high, int) else 1e-3 * (limit.high - limit.low)
    return [limit.low, limit.high, limit.low - step, limit.high + step]


def every_odd_value() -> list[Odd]:
    """All of them, in a fixed order."""
    return [Odd(option, key, value) for (option, key), kind in fields().items() for value in odd_values(kind)]
