"""Scores of inserted objects: colour, fill and shape of what is in the hole. Each function: Scoring -> values."""

from __future__ import annotations

import numpy as np

from eval.metrics.binding import bind
from eval.metrics.shapes import shape_of
from eval.scoring import Scoring, Values
from ragaf_exp.core.types import Example, SceneObject
from ragaf_exp.data.sources.insertion import NAMES
from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS, OBJECT_COLOURS, delta_e, lab_table, to_lab

NEEDED = {"inserted", "kind"}


def object_metrics(s: Scoring) -> Values:
    """Whether the inserted object has the colour, the fill and the shape of its picture; of embedded data alone."""
    if not all(e.item.conditions.keys() >= NEEDED for e in s.examples):
        return {}
    rows = [judged(image, e) for image, e in zip(s.images, s.examples, strict=True)]
    return {name: [row[name] for row in rows] for name in rows[0]}


def judged(image: np.ndarray, example: Example) -> dict[str, float]:
    """Judge one image (H,W,3) uint8: 1 where the colour, fill or shape in the hole is right, else 0."""
    conditions = example.item.conditions
    inserted, hole = conditions["inserted"] > 0, example.conditions["hole"] > 0
    shape, colour, fill = (names[int(i)] for names, i in zip(NAMES, conditions["kind"], strict=True))
    thing = SceneObject(1, shape, colour, fill, (0, 0))
    (bound,) = bind(image, [thing], inserted.astype(np.uint8), OBJECT_COLOURS, BACKGROUND_COLOURS)
    return {
        "object_colour": float(bound.correct),
        "object_fill": float(bound.correct and bound.fill_correct),
        "object_shape": float(shape_of(silhouette(image, hole)) == shape),
    }


def silhouette(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Pixels (H,W) bool of the object in the hole: nearest to the palette's most frequent object colour there.

    Args:
        image: (H,W,3) uint8.
        hole: (H,W) bool.
    """
    lab = to_lab(image)
    candidates = np.vstack([lab_table(OBJECT_COLOURS), lab_table(BACKGROUND_COLOURS)])
    if (~hole).any():  # a textured ground differs from its named colour
        candidates = np.vstack([candidates, np.median(lab[_rim(hole)], axis=0)])
    nearest = delta_e(lab[..., None, :], candidates).argmin(-1)
    counts = np.bincount(nearest[hole], minlength=len(candidates))[: len(OBJECT_COLOURS)]
    return hole & (nearest == counts.argmax()) if counts.any() else np.zeros_like(hole)


def _rim(hole: np.ndarray) -> np.ndarray:
    """Pixels (H,W) bool around a hole, up to 4 px away; all outside it if there are none."""
    y, x = np.nonzero(hole)
    near = np.zeros_like(hole)
    near[max(0, y.min() - 4) : y.max() + 5, max(0, x.min() - 4) : x.max() + 5] = True
    return near & ~hole if (near & ~hole).any() else ~hole
