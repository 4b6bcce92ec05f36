"""Distances between the features of two sets: Frechet distance and kernel distance, as pure functions of arrays.

The Frechet distance (Heusel et al. 2017; Dowson and Landau 1982) is biased upwards at every finite number of images
(Binkowski et al. 2018; Chong and Forsyth 2020); the kernel distance is unbiased.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigvalsh
from scipy.linalg.lapack import dpstrf

PIECE = 8_000_000  # values held in float64 at once


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D,D) in float64 of features (N,D) of any float type.

    Features are read in pieces, so they may be memory-mapped. Raises ValueError for NaN, infinity, or fewer than 2 rows.
    """
    if len(_shaped(features)) < 2:
        raise ValueError("a covariance needs the features of at least 2 images")
    mean = features.mean(0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError("features hold NaN or infinity")
    products = np.zeros((len(mean),) * 2)
    step = max(1, PIECE // len(mean))
    for start in range(0, len(features), step):
        apart = features[start : start + step] - mean
        products += apart.T @ apart
    return mean, products / (len(features) - 1)


def frechet(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Frechet distance of two Gaussians: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2).

    With C = U'U by pivoted Cholesky, which also exists for singular covariances, the eigenvalues of C1 C2 are those of
    the symmetric matrix (U1 U2')(U1 U2')'. So there is no matrix square root, no complex number and no offset on the
    diagonal.

    Args:
        mean1: (D,) mean of the first set.
        cov1: (D,D) covariance of the first set.
        mean2: (D,) mean of the second set.
        cov2: (D,D) covariance of the second set.

    Raises:
        ValueError: For other shapes, NaN, and matrices that are not covariances.
    """
    (mean1, cov1), (mean2, cov2) = _gaussian(mean1, cov1, "first"), _gaussian(mean2, cov2, "second")
    if mean1.shape != mean2.shape:
        raise ValueError(f"features of {mean1.size} and of {mean2.size} dimensions: take both from one network")
    cross = root_of(cov1)[0] @ root_of(cov2)[0].T
    small = cross @ cross.T if cross.shape[0] <= cross.shape[1] else cross.T @ cross
    both = np.sqrt(np.clip(eigvalsh(small, overwrite_a=True), 0, None)).sum() if small.size else 0.0
    return frechet_of(mean1, cov1, mean2, cov2, both)


def frechet_of(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray, both: float) -> float:
    """Frechet distance of two Gaussians with known tr (C1 C2)^1/2.

    Args:
        mean1: (D,) mean of the first set.
        cov1: (D,D) covariance of the first set.
        mean2: (D,) mean of the second set.
        cov2: (D,D) covariance of the second set.
        both: tr (C1 C2)^1/2.
    """
    return max(0.0, float(np.square(mean1 - mean2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * both))


def _gaussian(mean: np.ndarray, cov: np.ndarray, which: str) -> tuple[np.ndarray, np.ndarray]:
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if mean.ndim != 1 or cov.shape != (mean.size, mean.size) or not mean.size:
        raise ValueError(f"{which} set: mean {mean.shape} and covariance {cov.shape} must be (D,) and (D,D)")
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise ValueError(f"{which} set: mean or covariance holds NaN or infinity")
    rounding = 1e-6 * np.abs(cov).max()
    if np.abs(cov - cov.T).max() > rounding or cov.diagonal().min() < -rounding:
        raise ValueError(f"{which} set: the covariance is not symmetric or has negative variances")
    return mean, cov


def root_of(cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """U (rank, D) with U'U = cov for a positive semi-definite cov (D,D), and the columns (rank,) of its triangle."""
    if not cov.any():
        return np.zeros((0, len(cov))), np.zeros(0, np.intp)
    factor, pivots, rank, info = dpstrf(cov)
    if info < 0:
        raise ValueError(f"LAPACK's dpstrf refused its argument {-info}")
    root = np.empty((rank, len(cov)))
    root[:, pivots - 1] = np.triu(factor)[:rank]
    return root, pivots[:rank] - 1


def kid(
    features1: np.ndarray, features2: np.ndarray, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> Estimate:
    """Kernel distance (Binkowski et al. 2018): unbiased MMD^2 with the kernel (x.y / D + 1)^3, mean over subsets.

    Subsets share images, so their spread alone understates the error. The interval is the delete-d jackknife's (Shao and
    Wu 1989), value +- 1.96 s (m / (n - m) + 1 / subsets)^1/2 with s the spread of subsets of m out of n images. The value
    is unbiased, so it may be negative.

    Args:
        features1: (N1,D) features of the first set.
        features2: (N2,D) features of the second set.
        subsets: Number of random subsets.
        subset_size: Images of either set in a subset; at most half of the smaller set is used.
        seed: Of the subsets.

    Raises:
        ValueError: For NaN, other shapes, and fewer than 4 images.
    """
    first, second = _shaped(features1), _shaped(features2)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"features of {first.shape[1]} and of {second.shape[1]} dimensions: take both from one network")
    if subsets < 2 or subset_size < 2:
        raise ValueError(f"{subsets} subsets of {subset_size} images: at least 2 of 2")
    fewest = min(len(first), len(second))
    if fewest < 4:
        raise ValueError(f"{fewest} images: the kernel distance needs at least 4 in either set")
    size = min(subset_size, fewest // 2)
    rng = np.random.default_rng(seed)
    values = np.array([_mmd(_subset(first, size, rng), _subset(second, size, rng)) for _ in range(subsets)])
    if not np.isfinite(values).all():
        raise ValueError("features hold NaN or infinity")
    reach = 1.96 * float(values.std(ddof=1)) * math.sqrt(size / (fewest - size) + 1 / subsets)
    value = float(values.mean())
    return Estimate(value, value - reach, value + reach)


def _subset(features: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    rows = np.sort(rng.choice(len(features), size, replace=False))  # sorted: a memory-mapped file is read in order
    return np.ascontiguousarray(features[rows], np.float32)


def _mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased MMD^2 (Gretton et al. 2012, eq. 3) of two samples (m,D)."""
    size, width = x.shape

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / width + 1) ** 3

    within = sum(k.sum(dtype=np.float64) - k.diagonal().sum(dtype=np.float64) for k in (kernel(x, x), kernel(y, y)))
    return float(within / (size * (size - 1)) - 2 * kernel(x, y).mean(dtype=np.float64))


def _shaped(features: np.ndarray) -> np.ndarray:
    if features.ndim != 2 or not features.size:
        raise ValueError(f"features have shape {features.shape}: it must be (N,D), N and D at least 1")
    return features
