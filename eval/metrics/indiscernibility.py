"""Indiscernibility of two sets: how often a linear classifier of their features errs (Zhao et al. 2021, arXiv 2103.10428).

A linear support vector machine is fitted to tell generated images from real ones. U-IDS is its error rate on the same
images: 0.5 for sets that no plane separates at all, 0 for sets that one separates. P-IDS is the share of pairs in which it
finds the generated image more realistic than the real one of the same item. Both need more images than the features have
dimensions: fewer can always be separated.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

COST = 1.0  # of the squared hinge loss against the squared weights, scikit-learn's default for LinearSVC
ITERATIONS = 2000
GRADIENT = 1e-4  # largest component at which the fit has converged


def realism(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear support vector machine and return its decision values.

    It minimises |w|^2 / 2 + COST * sum of max(0, 1 - y f(x))^2 with y = 1 for real and -1 for generated images, where
    the bias of f is one of the weights: the problem of liblinear, which scikit-learn's LinearSVC solves.

    Args:
        real: Features of real images, (N,D).
        generated: Features of as many generated images, (N,D).

    Returns:
        Decision values of the real and of the generated images, (N,) each; positive = classified as real.

    Raises:
        ValueError: For other shapes, NaN and infinity.
    """
    if real.ndim != 2 or real.shape != generated.shape or not real.size:
        raise ValueError(f"features of {real.shape} and {generated.shape}: both must be (N,D)")
    x = np.concatenate([real, generated]).astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError("features hold NaN or infinity")
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)  # (2N,D+1)
    y = np.repeat([1.0, -1.0], len(real))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        short = np.maximum(0.0, 1 - y * (x @ weights))  # (2N,)
        value = weights @ weights / 2 + COST * short @ short
        return float(value), weights - 2 * COST * (x.T @ (y * short))

    options = {"maxiter": ITERATIONS, "gtol": GRADIENT, "ftol": 1e-12}
    fitted = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options=options)
    decisions = x @ fitted.x
    return decisions[: len(real)], decisions[len(real) :]


def errors(real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Errors of the classifier by image, whose mean is U-IDS.

    Args:
        real: Decision values of real images, (N,).
        generated: Those of generated images, (N,).

    Returns:
        (2N,) float, 1 = classified wrongly.
    """
    return np.concatenate([real <= 0, generated > 0]).astype(np.float64)


def preferred(real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Pairs in which the generated image is the more realistic one, whose mean is P-IDS.

    Args:
        real: Decision values of real images, (N,).
        generated: Those of the generated images of the same items, (N,).

    Returns:
        (N,) float, 1 = the generated one; equal values count one half.
    """
    return (generated > real) + 0.5 * (generated == real)
