"""The confidence interval of a Frechet distance, from the influence of each image's features."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh, solve_triangular

from eval.metrics.distances import PIECE, Estimate, frechet_of, moments, root_of

FEWEST = 4  # images of either set
SAMPLE = 4000  # images of a set whose influence is computed: enough to know the spread to a few percent
RELIABLE = 1e-7  # of the largest: smaller roots of eigenvalues are rounding errors


class _Set(NamedTuple):
    """Features (N,D), their mean and covariance, and the covariance's root with its pivots."""

    features: np.ndarray
    mean: np.ndarray
    cov: np.ndarray
    root: np.ndarray
    pivots: np.ndarray


def frechet_interval(features1: np.ndarray, features2: np.ndarray) -> Estimate:
    """The Frechet distance of features (N,D) with a 95 % interval for the choice of images.

    Delta method: an image's influence is the derivative of the distance with respect to its weight (Hampel 1974), and
    the variance of the distance is that of the influences over N, summed over both sets. The derivative with respect to
    a covariance is 1 - T, where T transports its Gaussian to the other (Takatsu 2011; Bhatia, Jain and Lim 2019). So one
    decomposition suffices for all images, or for a random SAMPLE of them. A grouped jackknife gives the same result for
    one distance per group; a bootstrap repeats images, which itself raises the distance. The interval does not cover the
    bias of a finite N. Raises ValueError as `moments` does, for features of different dimensions and for fewer than 4
    images.
    """
    if features1.shape[1:] != features2.shape[1:]:
        raise ValueError(f"features of {features1.shape} and {features2.shape}: take both from one network")
    fewest = min(len(features1), len(features2))
    if fewest < FEWEST:
        raise ValueError(f"{fewest} images: an interval needs at least {FEWEST} in either set")
    one, other = sorted(map(_set, (features1, features2)), key=lambda known: len(known.root))
    values, vectors = _decomposed(one.root @ other.root.T)
    value = frechet_of(one.mean, one.cov, other.mean, other.cov, values.sum())
    variance = 0.0
    for own, other_set, half in ((one, other, _from_lesser(one, values, vectors)),
                              (other, one, _to_lesser(one, values, vectors))):  # fmt: skip
        variance += _influences(own, other_set.mean, *half).var(ddof=1) / len(own.features)
    reach = 1.96 * math.sqrt(variance)
    return Estimate(value, max(0.0, value - reach), value + reach)


def _set(features: np.ndarray) -> _Set:
    mean, cov = moments(features)
    return _Set(features, mean, cov, *root_of(cov))


def _decomposed(cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values (r,) and left singular vectors (r,r) of a matrix (r,q) with r <= q."""
    if not len(cross):
        return np.zeros(0), np.zeros((0, 0))
    squares, vectors = eigh(cross @ cross.T, overwrite_a=True)
    return np.sqrt(np.clip(squares, 0, None)), vectors


def _from_lesser(lesser: _Set, values: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and W with x' T x = |x[columns] W|^2, for centred x of the set of lesser rank and its transport map T.

    With C1 = U'U and x = U'a, which the pivots' columns determine, U T U' = (U C2 U')^1/2 = P S P'.
    """
    if not len(lesser.root):
        return lesser.pivots, np.zeros((0, 0))
    return lesser.pivots, solve_triangular(lesser.root[:, lesser.pivots], vectors * np.sqrt(values))


def _to_lesser(lesser: _Set, values: np.ndarray, vectors: np.ndarray) -> tuple[slice, np.ndarray]:
    """Columns and W as in `_from_lesser`, for the other set, whose transport map is U' P S^-1 P' U."""
    reliable = values > RELIABLE * values.max(initial=0.0)
    return slice(None), lesser.root.T @ vectors[:, reliable] / np.sqrt(values[reliable])


def _influences(own: _Set, other_mean: np.ndarray, columns: np.ndarray | slice, half: np.ndarray) -> np.ndarray:
    """Influences up to a constant: 2 (x - m).(m - m') + |x - m|^2 - (x - m)' T (x - m), m' the other set's mean."""
    rows = np.arange(len(own.features))
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
    influences = np.empty(len(rows))
    step = max(1, PIECE // len(own.mean))
    for start in range(0, len(rows), step):
        apart = own.features[rows[start : start + step]] - own.mean
        mapped = apart[:, columns] @ half
        influences[start : start + step] = 2 * apart @ (own.mean - other_mean) + _squares(apart) - _squares(mapped)
    return influences


def _squares(rows: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", rows, rows)
