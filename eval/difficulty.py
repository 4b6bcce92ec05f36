"""Figures by difficulty: a mean over all items hides that models fail on busy sketches or small objects.

Items, or their objects, are split into thirds by one of their properties, and every third gets the same figures as the
whole set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eval.items import ItemRow, figure_of, flat

NAMES = {1: ("all",), 2: ("low", "high"), 3: ("low", "middle", "high")}
ITEM_FACTS = {
    "stroke_density": lambda row: row.stroke_density,
    "regions": lambda row: row.regions,
    "mask_area": lambda row: float(np.mean(row.areas)) if row.areas else None,  # of its objects' masks
    "largest_mask": lambda row: max(row.areas) if row.areas else None,
    "difficulty": lambda row: row.difficulty,
}
OBJECT_AREA = "object_area"  # for per-object metrics: each object by its own mask


def terciles(values: Sequence[float] | np.ndarray) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """The group (n,) of every value, and each group's lowest and highest value.

    Bounds are values that occur, and equal values share a group. So groups differ in size where many values are equal,
    as counts are, and there are fewer than three where few values differ. Raises ValueError for no values and for NaN.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size == 0 or np.isnan(values).any():
        raise ValueError(f"values have shape {values.shape}: it must be (n,) with n at least 1, without NaN")
    bounds = np.quantile(values, (1 / 3, 2 / 3), method="inverted_cdf")
    _, groups = np.unique(np.searchsorted(bounds, values, side="left"), return_inverse=True)
    members = [values[groups == i] for i in range(int(groups.max()) + 1)]
    return groups, [(float(m.min()), float(m.max())) for m in members]


def group_figures(
    rows: Sequence[ItemRow], better: Mapping[str, bool], *, resamples: int = 2000
) -> dict[str, dict[str, Any]]:
    """Figures for the groups of every fact that some item has.

    Facts of an item are stroke_density, regions, mask_area (the mean over its objects' masks) and largest_mask, both as
    shares of the image, and difficulty, the data set's rating. object_area is a fact of an object and groups per-object
    metrics only.

    Args:
        rows: The items with their values.
        better: Names of the metrics, each with whether higher is better.
        resamples: Of the bootstrap.

    Returns:
        By fact, with figures as `eval.statistics.bootstrap.figure` makes them and `without` the number of items that
        lack the fact:

        {"regions": {"without": 0, "groups": [
            {"group": "low", "from": 2, "to": 3, "items": 71, "metrics": {"ssim": {"value": ..., "n": ..., ...}}}, ...]}}
    """
    by_fact = {}
    for fact, of in ITEM_FACTS.items():
        known = [row for row in rows if of(row) is not None]
        if known:
            groups = _grouped(known, [of(row) for row in known], better, resamples)
            by_fact[fact] = {"without": len(rows) - len(known), "groups": groups}
    listed = {name: higher for name, higher in better.items() if _by_object(rows, name)}
    objects = [_only(row, index, listed) for row in rows for index in range(len(row.areas))]
    if objects and listed:
        groups = _grouped(objects, [row.areas[0] for row in objects], listed, resamples)
        by_fact[OBJECT_AREA] = {"without": sum(not row.areas for row in rows), "groups": groups}
    return by_fact


def _grouped(rows: list[ItemRow], values: list[float], better: Mapping[str, bool], resamples: int) -> list[dict[str, Any]]:
    index, bounds = terciles(values)
    groups = []
    for i, (low, high) in enumerate(bounds):
        members = [row for row, group in zip(rows, index, strict=True) if group == i]
        metrics = {
            name: figure_of(members, name, higher_is_better=higher, resamples=resamples)
            for name, higher in better.items()
            if flat(members, name)[0]
        }
        items = len({row.key for row in members})
        name = NAMES[len(bounds)][i]
        groups.append({"group": name, "from": low, "to": high, "items": items, "metrics": metrics})
    return groups


def _by_object(rows: Sequence[ItemRow], name: str) -> bool:
    """Whether every value of the metric is a list with one number for each object."""
    there = [(row.values[name], row.areas) for row in rows if row.values.get(name) is not None]
    return bool(there) and all(isinstance(v, list) and len(v) == len(areas) for v, areas in there)


def _only(row: ItemRow, index: int, names: Iterable[str]) -> ItemRow:
    """The row reduced to the object at this index, with the values of these metrics."""
    values = {name: [row.values[name][index]] for name in names if name in row.values}
    return replace(row, areas=[row.areas[index]], values=values)
