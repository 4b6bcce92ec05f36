"""Named colours of the shape scenes, far enough apart in CIELAB that a name can be inferred from pixels.

Object colours differ pairwise by dE76 >= 38, backgrounds differ from every object colour by >= 33 and from
each other by >= 14. The values come from a random search in RGB for these margins.
"""

from __future__ import annotations

import cv2
import numpy as np

OBJECT_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (245, 135, 25),
    "yellow": (245, 215, 25),
    "green": (40, 150, 60),
    "cyan": (30, 190, 205),
    "blue": (40, 68, 221),
    "purple": (136, 51, 154),
    "pink": (245, 110, 180),
}
BACKGROUND_COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "beige": (232, 216, 184),
    "grey": (175, 178, 182),
    "lavender": (214, 204, 236),
    "mint": (200, 232, 212),
}
NEUTRAL_COLOURS: dict[str, tuple[int, int, int]] = {  # of `Figures` only; at least 33 from all object colours
    "black": (28, 28, 32),
    "brown": (112, 66, 30),
    "white": (250, 250, 250),
}
WIDE_COLOURS = OBJECT_COLOURS | NEUTRAL_COLOURS
TEXTURE_CONTRAST = 14.0  # dE76 between the two tones of a striped or dotted object


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB (..., 3), uint8 or float in [0, 1], to CIELAB (..., 3) float32 under D65, with L in [0, 100]."""
    scale = 1 / 255 if rgb.dtype == np.uint8 else 1.0
    flat = np.ascontiguousarray(rgb, dtype=np.float32).reshape(-1, 1, 3) * np.float32(scale)
    return cv2.cvtColor(flat, cv2.COLOR_RGB2LAB).reshape(rgb.shape)


def from_lab(lab: np.ndarray) -> np.ndarray:
    """Convert CIELAB (..., 3) to sRGB (..., 3) float32 in [0, 255], clipped to sRGB's gamut."""
    flat = np.ascontiguousarray(lab, dtype=np.float32).reshape(-1, 1, 3)
    return np.clip(cv2.cvtColor(flat, cv2.COLOR_LAB2RGB).reshape(lab.shape), 0, 1) * 255


def delta_e(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the CIE76 colour difference of Lab colours (..., 3), broadcasting."""
    return np.linalg.norm(np.asarray(first) - np.asarray(second), axis=-1)


def lab_table(colours: dict[str, tuple[int, int, int]]) -> np.ndarray:
    """Convert a table of named colours to Lab values (K, 3), in its order."""
    return to_lab(np.array(list(colours.values()), np.uint8))


OBJECT_LAB = lab_table(OBJECT_COLOURS)
BACKGROUND_LAB = lab_table(BACKGROUND_COLOURS)
OBJECT_NAMES = tuple(OBJECT_COLOURS)
BACKGROUND_NAMES = tuple(BACKGROUND_COLOURS)


def nearest_colour(rgb: np.ndarray, colours: dict[str, tuple[int, int, int]] | None = None) -> np.ndarray:
    """Name the palette colour (object colours by default) nearest in CIELAB to each colour of (..., 3)."""
    table = OBJECT_COLOURS if colours is None else colours
    labs = OBJECT_LAB if colours is None else lab_table(table)
    return np.array(list(table))[delta_e(to_lab(rgb)[..., None, :], labs).argmin(-1)]


def two_tones(rgb: tuple[int, int, int], contrast: float = TEXTURE_CONTRAST) -> tuple[np.ndarray, np.ndarray]:
    """Compute a darker and a lighter tone (3,) float32 in [0, 255] around a colour, `contrast` dE76 apart."""
    base = np.array(rgb, np.float32)

    def tones(amount: float) -> tuple[np.ndarray, np.ndarray]:
        return base * (1 - amount), base + (255 - base) * amount

    low, high = 0.0, 0.5
    for _ in range(20):
        middle = (low + high) / 2
        dark, light = (to_lab(tone / 255) for tone in tones(middle))
        low, high = (middle, high) if delta_e(dark, light) < contrast else (low, middle)
    return tones(low)


TONES = {name: two_tones(rgb) for name, rgb in OBJECT_COLOURS.items()}
