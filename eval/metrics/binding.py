"""Did each object get the colour and the fill that the caption gives it? Binding on scenes with known masks.

Colour: every pixel of the object's interior votes for the nearest colour in CIELAB (CIE76), and the object
has the colour with the most votes. Beside the palette's object colours stand its background colours and the
median colour that the image itself shows outside all objects: an object left unpainted finds "background"
and is not bound, even where the background strayed towards an object's colour. The interior leaves out the
rim, which blends into the background and carries the stroke's imprecision.

Fill: see eval.metrics.fills. A hole in the mask counts as hollow where it shows background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from eval.metrics.fills import fill_of, hole, interior, rim_px
from eval.registry import SCENES, grouped, higher_is_better
from eval.statistics.bootstrap import figure
from ragaf_exp.core.types import SceneObject

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


HARD = ("repeated", "heldout")
SPLITS: dict[str, Callable[[ObjectBinding, int], str]] = {  # of an object in a scene of so many
    "objects": lambda found, count: str(count),
    "shapes": lambda found, count: "repeated" if found.object.repeated else "distinct",
    "pairs": lambda found, count: "heldout" if found.object.heldout else "seen",
}


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


def binding_values(scene: Sequence[ObjectBinding]) -> dict[str, list[float | None]]:
    """What each object of one scene counts in each figure, 0 or 1; None where the figure does not concern it.

    fill_accuracy concerns objects whose caption names a fill, the figures of held-out pairs and repeated shapes those
    alone. An unpainted object counts against accuracy but not as a leak.
    """
    correct = [float(b.correct) for b in scene]
    return {
        "binding_accuracy": list(correct),
        "binding_accuracy_heldout": [c if b.object.heldout else None for c, b in zip(correct, scene, strict=True)],
        "binding_accuracy_repeated": [c if b.object.repeated else None for c, b in zip(correct, scene, strict=True)],
        "leak_rate": [float(b.leaked) for b in scene],
        "fill_accuracy": [float(b.fill_correct) if b.object.fill else None for b in scene],
    }


def binding_splits(scenes: Sequence[Sequence[ObjectBinding] | None], **measured_with: Any) -> dict[str, dict[str, Any]]:
    """Accuracy, leak rate and fill accuracy of the groups that objects fall into, in the layout of eval.difficulty.

    "objects": by the number of objects in the scene ("2", "3", ...); "shapes": "distinct", and "repeated" where
    another object of the scene has the same shape; "pairs": colour-shape pairs "seen" in training, and "heldout".
    A group without objects is left out; `without` counts the scenes that can't be judged, None. `measured_with` goes
    to eval.statistics.bootstrap.figure; intervals are clustered by scene. Returns

        {"pairs": {"without": 0, "groups": [{"group": "seen", "items": 98, "metrics": {"leak_rate": {...}, ...}}, ...]}}
    """
    judged = [scene for scene in scenes if scene is not None]
    found: dict[str, dict[str, Any]] = {}
    for fact, group_of in SPLITS.items():
        labelled = [[(group_of(b, len(scene)), b) for b in scene] for scene in judged]
        groups = []
        for name in sorted({name for scene in labelled for name, _ in scene}, key=_rank):
            members = ([b for group, b in scene if group == name] for scene in labelled)
            groups.append(_group(name, [objects for objects in members if objects], measured_with))
        if groups:
            found[fact] = {"without": len(scenes) - len(judged), "groups": groups}
    return found


def _rank(group: str) -> int:
    """Numbers by value; of two names, what is usual before what is hard."""
    return int(group) if group.isdigit() else int(group in HARD)


def _group(name: str, parts: list[list[ObjectBinding]], measured_with: dict[str, Any]) -> dict[str, Any]:
    """Figures of one group, by the objects of each scene that fall into it."""
    values, metrics = [binding_values(part) for part in parts], {}
    for metric in grouped(SCENES):
        rows = [(i, v) for i, of in enumerate(values) for v in of[metric] if v is not None]
        if rows:
            better, clusters = higher_is_better(metric), [i for i, _ in rows]
            metrics[metric] = figure([v for _, v in rows], clusters=clusters, higher_is_better=better, **measured_with)
    return {"group": name, "items": len(parts), "metrics": metrics}


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


def _looks(lab: np.ndarray, nearest: np.ndarray, names: list[str], mask: np.ndarray, label: int) -> tuple[str, str]:
    """Colour and fill of the object with this mask (H,W)."""
    if not mask.any():
        raise ValueError(f"object {label} has no pixels in the object map")
    rim = rim_px(mask.shape)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(mask))
    lightness, nearest, mask = lab[box][..., 0], nearest[box], mask[box]
    inside, gap = interior(mask, rim), hole(mask, rim)
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
