"""Means over seeds and items, and differences of two members, with two-level bootstrap intervals.

Figures vary with the training seed and with the items, so each resample draws both (Efron, Tibshirani 1993, ch. 8). All
seeds are scored on the same items, so seeds and items are crossed: a resample draws seeds, and one set of items for all of
them. Two members are compared on the seeds and items that both have, with the same draws for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.items import ItemRow, numbers
from eval.statistics.bootstrap import Estimate, certain_reach, percentile_interval


@dataclass(frozen=True)
class SeedEstimate(Estimate):
    """A member's figure, or its difference to another member's; n counts the values of all seeds."""

    seeds: int


@dataclass(frozen=True)
class Scores:
    """Scores of the seeds (S) of one member on the same items (I): sums and counts of each item's values."""

    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    sums: np.ndarray  # (S,I)
    counts: np.ndarray  # (S,I)


def scores(runs: dict[int, Sequence[ItemRow]], name: str) -> Scores | None:
    """The values of one metric of a member's runs, by seed, on their common items; None if there are none."""
    tables = {seed: {row.key: numbers(row.values.get(name)) for row in rows} for seed, rows in runs.items()}
    first = next(iter(tables.values()), {})
    keys = tuple(key for key in first if all(table.get(key) for table in tables.values()))
    if not keys:
        return None
    sums, counts = (np.array([[f(table[key]) for key in keys] for table in tables.values()], float) for f in (sum, len))
    return Scores(tuple(tables), keys, sums, counts)


def mean(of: Scores, seed: int = 0, resamples: int = 2000) -> SeedEstimate:
    """The mean over all values of all seeds.

    Args:
        of: The member's scores.
        seed: Of the resamples.
        resamples: Their number.

    Returns:
        The mean with its interval over seeds and items; over items only if there is one seed.
    """
    (drawn,) = _resampled([of], seed, resamples)
    estimate = _estimate(_mean(of), drawn, of)
    shares = ((of.sums >= 0) & (of.sums <= of.counts)).all()
    return replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 1.0)) if shares else estimate


def difference(member: Scores, reference: Scores, seed: int = 0, resamples: int = 2000) -> SeedEstimate | None:
    """The difference `member` minus `reference`, on the seeds and items that both have.

    Args:
        member: Scores of the member.
        reference: Scores of the member to compare it with.
        seed: Of the resamples.
        resamples: Their number.

    Returns:
        The difference with its interval; None if they share no seed or no item.
    """
    pair = _shared(member, reference)
    if pair is None:
        return None
    drawn = _resampled(pair, seed, resamples)
    return _estimate(_mean(pair[0]) - _mean(pair[1]), drawn[0] - drawn[1], pair[0])


def ratio(member: Scores, reference: Scores, seed: int = 0, resamples: int = 2000) -> SeedEstimate | None:
    """The ratio of `member` to `reference`, on the seeds and items that both have.

    Args:
        member: Scores of the member.
        reference: Scores of the member to compare it with.
        seed: Of the resamples.
        resamples: Their number.

    Returns:
        The ratio with its interval; None if they share no seed or no item, or if a resample of the reference is 0.
    """
    pair = _shared(member, reference)
    if pair is None:
        return None
    drawn = _resampled(pair, seed, resamples)
    if (drawn[1] <= 0).any():
        return None
    return _estimate(_mean(pair[0]) / _mean(pair[1]), drawn[0] / drawn[1], pair[0])


def _shared(*pair: Scores) -> list[Scores] | None:
    seeds = tuple(s for s in pair[0].seeds if s in pair[1].seeds)
    known = set(pair[1].keys)
    keys = tuple(k for k in pair[0].keys if k in known)
    return [_only(of, seeds, keys) for of in pair] if seeds and keys else None


def _mean(of: Scores) -> float:
    return float(of.sums.sum() / of.counts.sum())


def _only(of: Scores, seeds: tuple[int, ...], keys: tuple[str, ...]) -> Scores:
    rows, columns = [of.seeds.index(s) for s in seeds], [of.keys.index(k) for k in keys]
    return Scores(seeds, keys, of.sums[np.ix_(rows, columns)], of.counts[np.ix_(rows, columns)])


def _resampled(members: list[Scores], seed: int, resamples: int) -> list[np.ndarray]:
    """(resamples,) means of each member, over the same drawn seeds and items."""
    rng = np.random.default_rng(seed)
    seeds, items = members[0].sums.shape
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples).astype(float)  # (R,S) times drawn
    of_items = rng.multinomial(items, np.full(items, 1 / items), resamples).astype(float)  # (R,I)
    return [((of_seeds @ m.sums) * of_items).sum(1) / ((of_seeds @ m.counts) * of_items).sum(1) for m in members]


def _estimate(value: float, drawn: np.ndarray, of: Scores) -> SeedEstimate:
    low, high = percentile_interval(drawn)
    if low == high:  # all items agree: other values may occur at a rate that this many items can't rule out
        rare = 1.0 - certain_reach(len(of.keys))
        low, high = value - rare, value + rare
    return SeedEstimate(value, low, high, int(of.counts.sum()), len(of.keys), len(of.seeds))
