"""Titles, order and number formats of metrics.json's figures in reports, from eval.registry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from eval.registry import GROUPS, METRICS, Metric, metric_of
from ragaf_exp.config.stages import IMAGES, title_of

# suffixes of chance levels
BASELINES = {"_shuffled": ", chance", "_uniform": ", of a uniform map", "_chance": ", chance"}
_UNKNOWN = Metric("", "", "", "Other", share=False)


def stage_prefixes(names: Iterable[str]) -> dict[str, str]:
    """The prefixes in names of figures that belong to stages before the last, each with its stage's title, in order."""
    present = {name.rpartition("/")[0] for name in names}
    return {f"{image}/": title_of(image) for image in IMAGES if image in present}


def plain(name: str) -> str:
    """The name without the prefix of a stage or of a rival."""
    return name.rpartition("/")[2]


def base(name: str) -> str:
    """The name of the metric that a chance level belongs to, or the plain name itself."""
    known = metric_of(plain(name))
    return known.name if known else plain(name).removesuffix(_ending(name))


def _ending(name: str) -> str:
    return next((e for e in BASELINES if name.endswith(e)), "")


def metric(name: str) -> Metric:
    """The registry's entry for a figure; for a chance level that of its metric, with another title and meaning."""
    known = metric_of(plain(name)) or METRICS.get(base(name), _UNKNOWN)
    if known is _UNKNOWN or plain(name) == known.name:
        return known
    return replace(known, title=known.title + BASELINES[_ending(name)], meaning=known.chance.get(plain(name), ""))


def head(name: str) -> dict[str, str]:
    """Name, title, meaning and group of a figure, for the head of its row."""
    known = metric(name)
    title = known.title or plain(name).replace("_", " ")
    return {"name": name, "title": title, "meaning": known.meaning, "group": known.group}


def number(name: str, value: float, unit: bool = True, sign: bool = False) -> str:
    """Format a figure.

    Args:
        name: Of the figure.
        value: Its value, or a difference of two.
        unit: Whether to append the unit.
        sign: Whether to write a plus sign, for a difference; one that rounds to 0 has no sign.
    """
    known = metric(name)
    text = f"{value:{'+' if sign else ''}.{known.digits}f}"
    return (text if text.strip("+-0.") else text.lstrip("+-")) + (known.unit if unit else "")


def ordered(names: Iterable[str]) -> list[str]:
    """Sort plain names by group and in the registry's order, metrics before their chance levels, unknown names last."""
    rank = {name: (GROUPS.index(known.group), i) for i, (name, known) in enumerate(METRICS.items())}
    last = (len(GROUPS), 0)
    return sorted(set(names), key=lambda n: (rank.get(base(n), last), n))


def better(name: str, entry: dict[str, Any]) -> bool | None:
    """Whether higher is better; None for a chance level."""
    return None if name.endswith(tuple(BASELINES)) else entry.get("higher_is_better")
