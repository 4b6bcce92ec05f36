"""The interval of a Frechet distance, by what each image's features add to it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh, solve_triangular

from eval.metrics.distances import PIECE, Estimate, frechet_of, moments, root_of

FEWEST = 4  # images of either set
SAMPLE = 4000  # images of a set whose influence is computed: of more, their spread is known to a few percent
RELIABLE = 1e-7  # of the largest: roots of eigenvalues below it are rounding


class _Set(NamedTuple):
    """Features (N,D), their mean and covariance, and the covariance's root with its pivots."""

    features: np.ndarray
    mean: np.ndarray
    cov: np.ndarray
    root: np.ndarray
    pivots: np.ndarray


def frechet_interval(features1: np.ndarray, features2: np.ndarray) -> Estimate:
    """The Frechet distance of features (N,D) with a 95 % interval for the choice of images.

    By the delta method: an image's influence is the distance's derivative by its weight (Hampel 1974), and the variance
    of influences over N, of both sets, is that of the distance. The derivative by a covariance is 1 - T, T the matrix
    that transports its Gaussian to the other (Takatsu 2011; Bhatia, Jain and Lim 2019), so that one decomposition
    serves all images, or SAMPLE of them drawn at random. A jackknife over groups says the same and costs a distance a
    group; a bootstrap draws images twice, which itself raises the distance. The interval is not one for the bias of a
    finite N. Raises ValueError as `moments` does, for features of different dimensions and for fewer than 4 images.
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
    for here, there, half in ((one, other, _from_lesser(one, values, vectors)),
                              (other, one, _to_lesser(one, values, vectors))):  # fmt: skip
        variance += _influences(here, there.mean, *half).var(ddof=1) / len(here.features)
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
    """Columns and W with x' T x = |x[columns] W|^2, for x of the set of lesser rank minus its mean, T its map.

    With C1 = U'U and x = U'a, which the pivots' columns alone give back, U T U' = (U C2 U')^1/2 = P S P'.
    """
    if not len(lesser.root):
        return lesser.pivots, np.zeros((0, 0))
    return lesser.pivots, solve_triangular(lesser.root[:, lesser.pivots], vectors * np.sqrt(values))


def _to_lesser(lesser: _Set, values: np.ndarray, vectors: np.ndarray) -> tuple[slice, np.ndarray]:
    """The same for the other set, whose map is U' P S^-1 P' U."""
    kept = values > RELIABLE * values.max(initial=0.0)
    return slice(None), lesser.root.T @ vectors[:, kept] / np.sqrt(values[kept])


def _influences(here: _Set, there: np.ndarray, columns: np.ndarray | slice, half: np.ndarray) -> np.ndarray:
    """But for a constant: 2 (x - m).(m - m') + |x - m|^2 - (x - m)' T (x - m), m' the other set's mean."""
    rows = np.arange(len(here.features))
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
    found = np.empty(len(rows))
    step = max(1, PIECE // len(here.mean))
    for start in range(0, len(rows), step):
        apart = here.features[rows[start : start + step]] - here.mean
        mapped = apart[:, columns] @ half
        found[start : start + step] = 2 * apart @ (here.mean - there) + _squares(apart) - _squares(mapped)
    return found


def _squares(rows: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", rows, rows)
