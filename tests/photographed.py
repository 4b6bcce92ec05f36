"""Sketches as a phone photographs them: ink on paper, and the light, the print and the table around it."""

from __future__ import annotations

import cv2
import numpy as np

PAPER = 235.0
STRENGTH = {"pen": 0.75, "pencil": 0.45, "marker": 0.75, "filled": 0.75}  # how much light the ink takes


def ink(kind: str, size: int) -> np.ndarray:
    """(size, size) float in [0, 1]: a circle, a square, a line and an ellipse, or filled shapes."""
    canvas, unit = np.zeros((size, size), np.uint8), size / 512
    width = {"pen": 5, "pencil": 3, "marker": 24, "filled": 5}[kind]
    width = max(1, round(width * unit))

    def at(*values: float) -> tuple[int, ...]:
        return tuple(round(value * unit) for value in values)

    solid = -1 if kind == "filled" else width
    cv2.circle(canvas, at(150, 170), *at(85), 255, solid, cv2.LINE_AA)
    cv2.rectangle(canvas, at(300, 260), at(460, 440), 255, width)
    cv2.line(canvas, at(60, 400), at(250, 470), 255, width, cv2.LINE_AA)
    if kind == "filled":
        cv2.rectangle(canvas, at(330, 290), at(420, 400), 255, -1)
    elif kind != "marker":
        cv2.ellipse(canvas, at(380, 120), at(80, 50), 30, 0, 360, 255, width, cv2.LINE_AA)
    return canvas / 255.0


def _axis(size: int, angle: float) -> np.ndarray:
    """Position along a direction in degrees, 0 in the picture's middle, in sides."""
    y, x = np.mgrid[:size, :size] / (size - 1.0) - 0.5
    return x * np.cos(np.deg2rad(angle)) + y * np.sin(np.deg2rad(angle))


def step(size: int, low: float, angle: float = 90, at: float = 0.05) -> np.ndarray:
    """Paper with a hard shadow over one side."""
    return np.where(_axis(size, angle) > at, low, PAPER)


def gradient(size: int, low: float, angle: float) -> np.ndarray:
    along = _axis(size, angle)
    return PAPER + (low - PAPER) * (along - along.min()) / (along.max() - along.min())


def vignette(size: int, depth: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / (size - 1.0) - 0.5
    return PAPER * (1 - depth * (x * x + y * y) / 0.5)


def ruled(size: int, light: float, angle: float = 0) -> np.ndarray:
    """Light of graph paper, (size, size): `light` on its printed lines, 1 elsewhere."""
    y, x = np.mgrid[:size, :size]
    turn, pitch = np.deg2rad(angle), size / 20
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return np.where((along % pitch < 1) | (across % pitch < 1), light, 1.0)


def fold(size: int, depth: float, angle: float) -> np.ndarray:
    along = _axis(size, angle) * size
    return 1 - depth * np.exp(-(along**2) / 18) + 0.05 * np.exp(-((along - 6) ** 2) / 30)


def photo(kind: str, paper: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """uint8 (H, W): the ink of this kind on such paper."""
    grey = paper * (1 - STRENGTH[kind] * ink(kind, len(paper)))
    grey = grey + np.random.default_rng(seed).normal(0, noise, grey.shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def on_table(picture: np.ndarray, tone: float, margin: int) -> np.ndarray:
    """The picture, somewhat turned, on a table of this tone that shows `margin` px at each side."""
    size = len(picture)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), 3, 1 - 2 * margin / size)
    inside = cv2.warpAffine(np.full_like(picture, 255), turn, (size, size)) > 127
    return np.where(inside, cv2.warpAffine(picture, turn, (size, size), borderValue=int(PAPER)), tone).astype(np.uint8)


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    """Intersection over union of the strokes."""
    one, two = one > 0.5, two > 0.5
    either = (one | two).sum()
    return float((one & two).sum() / either) if either else 1.0
