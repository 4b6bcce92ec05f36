"""Shape of a region, whatever its place, size and rotation."""

from __future__ import annotations

import numpy as np

BINS = 24  # directions from the centroid
HARMONICS = 8


def fourier_descriptors(labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Magnitudes of harmonics 1 to HARMONICS of the radius profile, relative to its mean.

    labels (H,W) int, -1 = no region; centres (N,2) x and y in pixels. Returns (N,HARMONICS) float32, 0 = a disc. The
    profile is the farthest pixel in each of BINS directions from the centroid; taking magnitudes makes it blind to
    rotation (Zahn & Roskies 1972, Fourier descriptors for plane closed curves).
    """
    y, x = np.nonzero(labels >= 0)
    region = labels[y, x].astype(np.intp)
    dx, dy = x - centres[region, 0], y - centres[region, 1]
    direction = np.rint(np.arctan2(dy, dx) / (2 * np.pi) * BINS).astype(np.intp) % BINS
    profile = np.zeros(len(centres) * BINS)
    np.maximum.at(profile, region * BINS + direction, np.hypot(dx, dy) + 0.5)
    spectrum = np.abs(np.fft.rfft(profile.reshape(-1, BINS), axis=1))
    return (spectrum[:, 1 : HARMONICS + 1] / np.maximum(spectrum[:, :1], 1e-6)).astype(np.float32)
