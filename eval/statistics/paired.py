"""Paired bootstrap: the difference of two runs' figures on the same items, with its 95 % interval.

The same items are easy, or hard, for both runs. Each run's own interval ignores that, so intervals may overlap although
one run is clearly better. Here items are drawn once for all runs and the difference is computed within each resample
(Efron, Tibshirani 1993; Koehn 2004 for the comparison of systems).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.items import ItemRow, Values, numbers
from eval.statistics.bootstrap import Estimate, certain_reach, percentile_interval, resampled_sums


def paired_differences(
    runs: Sequence[Sequence[Values | None]], *, seed: int = 0, resamples: int = 2000
) -> list[Estimate]:
    """Differences of every later run to the first.

    All values of a run have the same weight. If all values are 0 or 1 and no item changed, or all changed in the same
    way, all resamples are equal and the bootstrap would claim certainty. The open ends are then those of the exact
    binomial interval over the items, as in `mean_interval`.

    Args:
        runs: The items' values of each run, in the same order: a number, a list with one for each object, or None for an
            item that the metric does not apply to.
        seed: Of the resamples.
        resamples: Their number.

    Raises:
        ValueError: For fewer than two runs, runs of different lengths, no values at all, and items that were scored in
            some of the runs only.
    """
    if len(runs) < 2 or len({len(run) for run in runs}) != 1:
        raise ValueError(f"runs of {', '.join(str(len(r)) for r in runs)} items: give two or more of as many items")
    scored = [[numbers(value) for value in run] for run in runs]
    sums, counts = (np.array([[f(v) for v in run] for run in scored], np.float64) for f in (sum, len))  # (R,I)
    concerned = counts > 0
    if (concerned != concerned[0]).any():
        differ = int((concerned != concerned[0]).any(axis=0).sum())
        raise ValueError(f"{differ} of {len(runs[0])} items were scored in some of the runs only")
    if not concerned[0].any():
        raise ValueError("no item was scored")
    sums, counts = sums[:, concerned[0]], counts[:, concerned[0]]
    binary = all(v in (0.0, 1.0) for run in scored for values in run for v in values)
    return [_difference(sums[[0, i]], counts[[0, i]], binary, seed, resamples) for i in range(1, len(runs))]


def _difference(sums: np.ndarray, counts: np.ndarray, binary: bool, seed: int, resamples: int) -> Estimate:
    """The difference of two runs, from the sums and counts (2,I) of their items' values."""
    first, other = sums.sum(1) / counts.sum(1)
    items, value = sums.shape[1], float(other - first)
    same = (counts[0] == counts[1]).all()
    change = (sums[1] - sums[0]) / counts[0]
    if binary and same and change[0] in (-1.0, 0.0, 1.0) and (change == change[0]).all():
        low, high = _open_ends(change[0], items)
    elif same:  # the difference of equal sums must be exactly 0
        drawn = resampled_sums(np.stack([sums[1] - sums[0], counts[0]], 1), seed=seed, resamples=resamples)
        value = float((sums[1] - sums[0]).sum() / counts[0].sum())
        low, high = percentile_interval(drawn[:, 0] / drawn[:, 1])
    else:
        drawn = resampled_sums(np.concatenate([sums, counts]).T, seed=seed, resamples=resamples)
        low, high = percentile_interval(drawn[:, 1] / drawn[:, 3] - drawn[:, 0] / drawn[:, 2])
    return Estimate(value, float(low), float(high), int(counts[1].sum()), items)


def _open_ends(change: float, items: int) -> tuple[float, float]:
    """The interval if every value changed by the same -1, 0 or 1: others may occur at a rate of up to 1 - reach."""
    rare = 1.0 - certain_reach(items)
    if change == 0.0:
        return -rare, rare
    return (1.0 - 2.0 * rare, 1.0) if change > 0 else (-1.0, 2.0 * rare - 1.0)


def shared_items(tables: Sequence[Sequence[ItemRow]], common: bool = False) -> list[list[ItemRow]]:
    """The rows of the items that are in all tables, in the first table's order.

    Equal items have the same key, true image and caption. Raises ValueError if the tables hold different items, unless
    `common` is set, and if no item is in all of them.
    """
    by_item = [{(row.key, row.image): row for row in rows} for rows in tables]
    shared = [item for item in by_item[0] if all(item in rows for rows in by_item)]
    sizes = [len(rows) for rows in by_item]
    if not shared or (not common and any(size != len(shared) for size in sizes)):
        raise ValueError(f"different items: {len(shared)} are common, of {' and '.join(map(str, sizes))}")
    return [[rows[item] for item in shared] for rows in by_item]
