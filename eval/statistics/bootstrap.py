"""Means with 95 % confidence intervals, by a bootstrap or Student's t, and the entries of metrics.json built from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

_CHUNK = 2_000_000  # clusters drawn at once: 16 MB of indices
_CACHED = 10_000_000  # at most this many draws are cached for the next call: 80 MB


@dataclass(frozen=True)
class Estimate:
    """A mean, or the difference of two, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int  # values: objects or items
    items: int

    @property
    def clear(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0


def mean_interval(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[Any] | np.ndarray | None = None,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float, float]:
    """Mean and its 95 % percentile bootstrap interval (Efron, Tibshirani 1993).

    If all values are 0 or all are 1, all resamples are equal and the bootstrap would claim certainty. The open end is
    then the exact binomial (Clopper-Pearson) bound over the clusters.

    Args:
        values: (n,).
        clusters: (n,) item of each value. Objects of one image are correlated, so whole items are resampled.
        seed: Of the resamples.
        resamples: Their number.

    Returns:
        (mean, low, high).

    Raises:
        ValueError: For no values, NaN, infinity, and clusters of another length.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"values have shape {values.shape}: it must be (n,) with n at least 1")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {values.size} values are NaN or infinite")
    sums, counts = _per_cluster(values, clusters)
    mean = float(values.mean())
    if np.isin(values, (0.0, 1.0)).all() and mean in (0.0, 1.0):
        reach = certain_reach(len(sums))
        return (mean, reach, 1.0) if mean else (mean, 0.0, 1.0 - reach)
    means = _resampled(sums, counts, np.random.default_rng(seed), resamples)
    return mean, *percentile_interval(means)


def percentile_interval(resampled: np.ndarray) -> tuple[float, float]:
    """The 95 % interval (low, high) of resampled values (R,)."""
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(low), float(high)


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of a few values, such as one for each seed, and half the width of its 95 % interval by Student's t.

    The half-width of a single value is NaN. Raises ValueError for no values.
    """
    from scipy.stats import t  # slow to import

    if not values:
        raise ValueError("no values: there must be at least 1")
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return mean, math.nan
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)


def _per_cluster(values: np.ndarray, clusters: Sequence[Any] | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    if clusters is None:
        return values, np.ones_like(values)
    if len(clusters) != values.size:
        raise ValueError(f"{len(clusters)} cluster names for {values.size} values")
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(index, values), np.bincount(index).astype(np.float64)


def _resampled(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """(resamples,) means over as many clusters, drawn with replacement; every value has the same weight."""
    return np.concatenate([sums[d].sum(1) / counts[d].sum(1) for d in _draws(len(sums), rng, resamples)])


def _draws(size: int, rng: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """Indices (rows,size) of clusters drawn with replacement, some of the resamples at a time."""
    step = max(1, _CHUNK // size)
    for start in range(0, resamples, step):
        yield rng.integers(size, size=(min(step, resamples - start), size))


def resampled_sums(columns: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> np.ndarray:
    """(resamples,K) sums of the columns (n,K) over n clusters drawn with replacement.

    The same clusters are drawn for every column, and in every call with the same n. So columns are paired, and their
    common variation cancels in a difference of their sums.

    Args:
        columns: (n,K) values of each cluster.
        seed: Of the resamples.
        resamples: Their number.
    """
    counts_of = _cached_counts if len(columns) * resamples <= _CACHED else _draw_counts
    return np.concatenate([counts @ columns for counts in counts_of(len(columns), seed, resamples)])


def _draw_counts(size: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Number of times (rows,size) that each cluster was drawn in each resample, some of the resamples at a time."""
    for drawn in _draws(size, np.random.default_rng(seed), resamples):
        index = drawn + size * np.arange(len(drawn))[:, None]
        yield np.bincount(index.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


@lru_cache(maxsize=1)
def _cached_counts(size: int, seed: int, resamples: int) -> tuple[np.ndarray, ...]:
    """`_draw_counts`, cached: a comparison of runs needs them once for each of many figures."""
    return tuple(_draw_counts(size, seed, resamples))


def certain_reach(clusters: int) -> float:
    """Lower bound of the rate of an event observed in every cluster (Clopper-Pearson, 2.5 % on this side)."""
    return 0.025 ** (1.0 / clusters)


def figure(
    values: Sequence[float] | np.ndarray,
    *,
    higher_is_better: bool,
    clusters: Sequence[Any] | np.ndarray | None = None,
    resamples: int = 2000,
    **measured_with: Any,
) -> dict[str, Any]:
    """One entry of metrics.json: mean, number of values, interval, and how it was measured.

    Args:
        values: (n,) values of items or objects.
        higher_is_better: Recorded with the figure.
        clusters: (n,) item of each value, see `mean_interval`; `items` records their number.
        resamples: Of the bootstrap.
        **measured_with: Further facts to record (weights="ema", the samples' seed, resize method, ...).
    """
    mean, low, high = mean_interval(values, clusters, resamples=resamples)
    entry = {"value": mean, "n": len(values), "ci95": [low, high], "higher_is_better": higher_is_better}
    if clusters is not None:
        entry["items"] = len(set(np.asarray(clusters).tolist()))
    return entry | measured_with | {"resamples": resamples}
