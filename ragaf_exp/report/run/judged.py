"""Figures by the judges of other benchmarks, which python -m eval.export writes to judged.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.report.run.parse import is_number

FILE, SCHEMA = "judged.json", 1
IMAGES = {"generated": "images of the run", "truth": "images of the data"}


@dataclass(frozen=True)
class Judgement:
    """The figures of one judge, as texts."""

    title: str
    of: str  # which images it saw
    scenes: int
    differs: str  # in what the judge and the data differ from the published figures'
    rows: list[dict[str, str]]


def read_judged(path: Path) -> list[Judgement]:
    """Read the figures of all judges; none without the file. Raises UserError if it is damaged."""
    if not is_regular(path):
        return []
    judges = read_mapping(path, SCHEMA).get("judges")
    try:
        return [_judgement(entry) for _, entry in sorted(judges.items())]  # type: ignore[union-attr]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged; read the judge's results again with python -m eval.export") from error


def _judgement(entry: dict[str, Any]) -> Judgement:
    rows = [_row(figure) for figure in entry["figures"]]
    return Judgement(str(entry["title"]), IMAGES[entry["images"]], int(entry["scenes"]), str(entry["differs"]), rows)


def _row(figure: dict[str, Any]) -> dict[str, str]:
    if not is_number(figure["value"]):
        raise ValueError("no number")
    low, high = figure["ci95"] or (None, None)
    interval = "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
    number = "" if figure["n"] is None else f"{figure['n']:,}"
    return {"title": str(figure["title"]), "value": f"{figure['value']:.3f}", "interval": interval, "n": number}
