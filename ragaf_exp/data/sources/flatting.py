"""Flat colouring of the areas of a line drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS, TONES
from ragaf_exp.data.sources.render import grid_for, object_colour, paint

INK = (25.0, 25.0, 28.0)  # of the strokes
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")


@dataclass(frozen=True)
class Area:
    """An area of a drawing and how it is coloured."""

    mask: np.ndarray  # (H,W) bool
    colour: str  # a name of OBJECT_COLOURS
    fill: str  # plain, striped, dotted, shaded


def centre(mask: np.ndarray) -> tuple[int, int]:
    """Column and row of a mask's (H,W) centre."""
    row, column = (int(values.mean()) for values in np.nonzero(mask))
    return column, row


def place_name(mask: np.ndarray) -> str:
    """Name the ninth of the picture in which a mask (H,W) has its centre, as 'at the top left' or 'in the middle'."""
    thirds = [int(3 * values.mean() / length) for values, length in zip(np.nonzero(mask), mask.shape, strict=True)]
    words = [word for word in (ROWS[thirds[0]], COLUMNS[thirds[1]]) if word]
    return f"at the {' '.join(words)}" if words else "in the middle"


def colour_areas(strokes: np.ndarray, areas: Sequence[Area], background: str, rng: np.random.Generator) -> np.ndarray:
    """Colour a drawing.

    Args:
        strokes: (S,S) in [0,1], 1 = stroke.
        areas: The areas that are coloured; all else has the background's colour.
        background: A name of BACKGROUND_COLOURS.
        rng: Random generator, for textures and shades.

    Returns:
        (S,S,3) uint8, with the strokes on top.
    """
    canvas = np.empty((*strokes.shape, 3), np.float32)
    canvas[:] = BACKGROUND_COLOURS[background]
    whole = (slice(0, strokes.shape[0]), slice(0, strokes.shape[1]))
    for area in areas:
        paint(canvas, area.mask.astype(np.float32), whole, _colouring(area, whole, rng))
    paint(canvas, strokes, whole, np.array(INK, np.float32))
    return np.rint(canvas).astype(np.uint8)


def _colouring(area: Area, box: tuple[slice, slice], rng: np.random.Generator) -> np.ndarray:
    """(3,) or (H,W,3): the colour or the texture of an area."""
    if area.fill == "shaded":
        dark, light = TONES[area.colour]
        return dark + (light - dark) * _ramp(area.mask, rng.random() * 2 * np.pi)[..., None]
    return object_colour(area.colour, area.fill, box, grid_for(*area.mask.shape), rng)


def _ramp(mask: np.ndarray, angle: float) -> np.ndarray:
    """(H,W) from 0 at one side of a mask to 1 at the opposite one, in the direction of an angle."""
    rows, columns = np.indices(mask.shape)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    low, high = along[mask].min(), along[mask].max()
    return np.clip((along - low) / max(high - low, 1.0), 0, 1).astype(np.float32)
