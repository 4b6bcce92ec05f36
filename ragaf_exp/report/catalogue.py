"""How figures of metrics.json are written in reports, by what eval.registry says of their metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from eval.registry import GROUPS, METRICS, Metric, metric_of
from ragaf_exp.config.stages import FIRST_PREFIX

FIRST = FIRST_PREFIX  # of stage 1's figures where stage 2 has some too
# endings of what a figure is held against
BASELINES = {"_shuffled": ", chance", "_uniform": ", of a uniform map", "_chance": ", chance"}
_UNKNOWN = Metric("", "", "", "Other", share=False)


def plain(name: str) -> str:
    """The name without the prefix of stage 1 or of a rival."""
    return name.rpartition("/")[2]


def base(name: str) -> str:
    """The name of the metric that a chance level belongs to, or the plain name itself."""
    known = metric_of(plain(name))
    return known.name if known else plain(name).removesuffix(_ending(name))


def _ending(name: str) -> str:
    return next((e for e in BASELINES if name.endswith(e)), "")


def metric(name: str) -> Metric:
    """How the figure of this name is shown: a chance level as its metric, with a title and meaning of its own."""
    known = metric_of(plain(name)) or METRICS.get(base(name), _UNKNOWN)
    if known is _UNKNOWN or plain(name) == known.name:
        return known
    return replace(known, title=known.title + BASELINES[_ending(name)], meaning=known.chance.get(plain(name), ""))


def head(name: str) -> dict[str, str]:
    """What stands before a row."""
    known = metric(name)
    title = known.title or plain(name).replace("_", " ")
    return {"name": name, "title": title, "meaning": known.meaning, "group": known.group}


def number(name: str, value: float, unit: bool = True, sign: bool = False) -> str:
    """A figure with its digits; sign: a difference, with + or - before it unless it rounds to 0."""
    known = metric(name)
    text = f"{value:{'+' if sign else ''}.{known.digits}f}"
    return (text if text.strip("+-0.") else text.lstrip("+-")) + (known.unit if unit else "")


def ordered(names: Iterable[str]) -> list[str]:
    """Plain names by group and in the registry's order, each metric before its chance levels, then unknown ones."""
    place = {name: (GROUPS.index(known.group), i) for i, (name, known) in enumerate(METRICS.items())}
    last = (len(GROUPS), 0)
    return sorted(set(names), key=lambda n: (place.get(base(n), last), n))


def better(name: str, entry: dict[str, Any]) -> bool | None:
    """Whether higher is better; None where neither is, as for a chance level."""
    return None if name.endswith(tuple(BASELINES)) else entry.get("higher_is_better")
