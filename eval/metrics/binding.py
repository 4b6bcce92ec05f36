"""Did each object get the colour and the fill that the caption gives it? Binding on scenes with known masks.

Colour: every pixel of the object's interior votes for the nearest colour in CIELAB (CIE76), and the object
has the colour with the most votes. Beside the palette's object colours stand its background colours and the
median colour that the image itself shows outside all objects: an object left unpainted finds "background"
and is not bound, even where the background strayed towards an object's colour. The interior leaves out the
rim, which blends into the background and carries the stroke's imprecision.

Fill: see eval.metrics.fills. A hole in the mask counts as hollow where it shows background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from eval.bootstrap import figure
from eval.metrics.fills import fill_of, hole, interior, rim_px
from ragaf_exp.types import SceneObject

BACKGROUND = "background"
Palette = Mapping[str, Sequence[int]]  # name -> sRGB, 0 to 255


@dataclass(frozen=True)
class ObjectBinding:
    """What one object of a scene should be and what the image shows."""

    object: SceneObject
    found_colour: str  # a colour of the palette, or BACKGROUND where it was left unpainted
    found_fill: str  # plain, striped, dotted, hollow; BACKGROUND where it was left unpainted
    correct: bool  # the colour is the caption's
    leaked: bool  # the colour is wrong and that of another object of the scene
    fill_correct: bool


def bind(
    image: np.ndarray,
    objects: Sequence[SceneObject],
    object_map: np.ndarray,
    colours: Palette,
    backgrounds: Palette,
) -> list[ObjectBinding]:
    """Judge every object of a scene, in the order of `objects`.

    image (H,W,3) uint8, object_map (H,W) with each object's label. Raises ValueError for another dtype or
    size, for an object without pixels and for a wanted colour that the palette lacks.
    """
    if image.dtype != np.uint8 or image.shape != (*object_map.shape, 3):
        raise ValueError(f"image is {image.dtype} {image.shape}: it must be uint8 {(*object_map.shape, 3)}")
    lab = to_lab(image)
    names, nearest = _nearest(lab, object_map, colours, backgrounds)
    found = []
    for thing in objects:
        if thing.colour not in colours:
            raise ValueError(f"{thing.shape} should be {thing.colour}: the palette has {', '.join(colours)}")
        found.append(_looks(lab, nearest, names, object_map == thing.label, thing.label))
    return [
        _judge(thing, colour, fill, {other.colour for other in objects if other is not thing})
        for thing, (colour, fill) in zip(objects, found, strict=True)
    ]


def binding_figures(
    scenes: Sequence[Sequence[ObjectBinding]], **measured_with: Any
) -> dict[str, dict[str, Any]]:
    """Entries of metrics.json over the objects of all scenes, with intervals clustered by scene.

    binding_accuracy, leak_rate, fill_accuracy where captions name fills, and binding_accuracy_heldout and
    binding_accuracy_repeated where a held-out pair, or a shape twice in a scene, occurs.
    Every rate is over all objects concerned, so an unpainted object counts against accuracy but not as a
    leak. `measured_with` goes to eval.bootstrap.figure.
    """
    flat = [(i, b) for i, scene in enumerate(scenes) for b in scene]
    held = [(i, b) for i, b in flat if b.object.heldout]
    repeated = [(i, b) for i, b in flat if b.object.repeated]
    filled = [(i, b) for i, b in flat if b.object.fill]
    parts = {
        "binding_accuracy": (flat, "correct", True),
        "binding_accuracy_heldout": (held, "correct", True),
        "binding_accuracy_repeated": (repeated, "correct", True),
        "leak_rate": (flat, "leaked", False),
        "fill_accuracy": (filled, "fill_correct", True),
    }
    return {
        name: figure(
            [float(getattr(b, field)) for _, b in rows],
            clusters=[i for i, _ in rows],
            higher_is_better=better,
            **measured_with,
        )
        for name, (rows, field, better) in parts.items()
        if rows
    }


def to_lab(image: np.ndarray) -> np.ndarray:
    """(H,W,3) uint8 sRGB to float32 CIELAB under D65."""
    return cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)


def _nearest(
    lab: np.ndarray, object_map: np.ndarray, colours: Palette, backgrounds: Palette
) -> tuple[list[str], np.ndarray]:
    """Names of the candidates and each pixel's nearest one, an index (H,W)."""
    table = np.array([*colours.values(), *backgrounds.values()], np.uint8)[None]
    candidates = to_lab(table)[0]
    free = object_map == 0
    if free.any():
        candidates = np.vstack([candidates, np.median(lab[interior(free, rim_px(free.shape))], axis=0)])
    names = [*colours] + [BACKGROUND] * (len(candidates) - len(colours))
    # |p - c|^2 without |p|^2, which is the same for every candidate: one small product instead of (H,W,K,3)
    score = lab @ (-2.0 * candidates.T) + (candidates**2).sum(1)
    return names, score.argmin(-1)


def _looks(
    lab: np.ndarray, nearest: np.ndarray, names: list[str], mask: np.ndarray, label: int
) -> tuple[str, str]:
    """Colour and fill of the object with this mask (H,W)."""
    if not mask.any():
        raise ValueError(f"object {label} has no pixels in the object map")
    rim = rim_px(mask.shape)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(mask))
    lightness, nearest, mask = lab[box][..., 0], nearest[box], mask[box]
    inside, gap = interior(mask, rim), hole(mask)
    colour = _vote(nearest[inside], names)
    if colour == BACKGROUND:
        return colour, BACKGROUND
    if gap.any():
        seen = _vote(nearest[interior(gap, rim)], names)
        return colour, "hollow" if seen == BACKGROUND else "plain"
    return colour, fill_of(lightness, inside, interior(mask, 2 * rim), max(lab.shape[:2]))


def _vote(nearest: np.ndarray, names: list[str]) -> str:
    """The name with the most votes; the background's candidates stand together."""
    votes: dict[str, int] = {}
    for name, count in zip(names, np.bincount(nearest, minlength=len(names)), strict=True):
        votes[name] = votes.get(name, 0) + int(count)
    return max(votes, key=lambda name: votes[name])


def _judge(thing: SceneObject, colour: str, fill: str, others: set[str]) -> ObjectBinding:
    correct = colour == thing.colour
    leaked = not correct and colour in others
    return ObjectBinding(thing, colour, fill, correct, leaked, fill == thing.fill)
