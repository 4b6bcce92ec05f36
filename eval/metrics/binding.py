"""Attribute binding on scenes with known masks: does each object have its caption's colour and fill?

Colour: every pixel of the object's interior votes for the nearest colour in CIELAB (CIE76), and the colour with the most
votes wins. The candidates are the palette's object colours, its background colours, and the median colour of the image
outside all objects. So an unpainted object is detected as "background" and is not bound, even if the background has
drifted towards an object's colour. The interior excludes the rim, which blends into the background and contains the
stroke's imprecision.

Fill: see eval.metrics.fills. A mask with a hole is hollow if the hole shows background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from eval.metrics.fills import fill_of, hole, interior, rim_px
from eval.registry import SCENES, grouped, higher_is_better
from eval.statistics.bootstrap import figure
from ragaf_exp.core.types import SceneObject

BACKGROUND = "background"
LEAST_OVERLAP, LEAST_SHARE = 0.5, 0.2  # COCO-MIG's thresholds
Palette = Mapping[str, Sequence[int]]  # name -> sRGB, 0 to 255


@dataclass(frozen=True)
class ObjectBinding:
    """One object of a scene, with the colour and the fill that the image shows."""

    object: SceneObject
    detected_colour: str  # a colour of the palette; BACKGROUND if it is unpainted
    detected_fill: str  # plain, striped, dotted, hollow; BACKGROUND if it is unpainted
    correct: bool  # the colour is the caption's
    leaked: bool  # the colour is wrong and that of another object of the scene
    fill_correct: bool
    overlap: float = 0.0  # IoU of its mask and what is painted there
    share: float = 0.0  # of what is painted there, the pixels with the caption's colour

    @property
    def success(self) -> bool:
        """Whether it is an instance success by COCO-MIG's rule (Zhou et al. 2024, MIGC), given its mask."""
        return self.overlap >= LEAST_OVERLAP and self.share >= LEAST_SHARE


HARD = ("repeated", "heldout")
SPLITS: dict[str, Callable[[ObjectBinding, int], str]] = {  # (object, number of objects in its scene) -> group, "" = none
    "objects": lambda bound, count: str(count),
    "shapes": lambda bound, count: "repeated" if bound.object.repeated else "distinct",
    "pairs": lambda bound, count: "heldout" if bound.object.heldout else "seen",
    "relations": lambda bound, count: bound.object.relation,
}


def bind(
    image: np.ndarray,
    objects: Sequence[SceneObject],
    object_map: np.ndarray,
    colours: Palette,
    backgrounds: Palette,
) -> list[ObjectBinding]:
    """Detect the colour and the fill of every object of a scene.

    Args:
        image: (H,W,3) uint8.
        objects: The scene's objects.
        object_map: (H,W) label of each pixel's object.
        colours: Object colours that are candidates.
        backgrounds: Background colours that are candidates.

    Returns:
        One result for each object, in the order of `objects`.

    Raises:
        ValueError: For another dtype or size, an object without pixels, and a wanted colour that the palette lacks.
    """
    if image.dtype != np.uint8 or image.shape != (*object_map.shape, 3):
        raise ValueError(f"image is {image.dtype} {image.shape}: it must be uint8 {(*object_map.shape, 3)}")
    lab = to_lab(image)
    names, nearest = _nearest(lab, object_map, colours, backgrounds)
    detected = []
    for thing in objects:
        if thing.colour not in colours:
            raise ValueError(f"{thing.shape} should be {thing.colour}: the palette has {', '.join(colours)}")
        detected.append(_detect(lab, nearest, names, object_map == thing.label, thing.label))
    bound = [
        _compared(thing, colour, fill, {other.colour for other in objects if other is not thing})
        for thing, (colour, fill) in zip(objects, detected, strict=True)
    ]
    painted = np.array([name != BACKGROUND for name in names])[nearest]
    instances = (_instance(thing, painted, nearest, names, object_map) for thing in objects)
    return [replace(one, overlap=overlap, share=share)
            for one, (overlap, share) in zip(bound, instances, strict=True)]  # fmt: skip


def binding_values(scene: Sequence[ObjectBinding]) -> dict[str, list[float | None]]:
    """Each object's value, 0 or 1, in each metric; None if the metric does not apply to it.

    fill_accuracy applies to objects whose caption names a fill; the metrics of held-out pairs and repeated shapes apply
    only to these. An unpainted object lowers the accuracy but is not a leak.
    """
    correct = [float(b.correct) for b in scene]
    return {
        "binding_accuracy": list(correct),
        "binding_accuracy_heldout": [c if b.object.heldout else None for c, b in zip(correct, scene, strict=True)],
        "binding_accuracy_repeated": [c if b.object.repeated else None for c, b in zip(correct, scene, strict=True)],
        "leak_rate": [float(b.leaked) for b in scene],
        "fill_accuracy": [float(b.fill_correct) if b.object.fill else None for b in scene],
        "instance_success": [float(b.success) for b in scene],
        "instance_iou": [b.overlap if b.success else 0.0 for b in scene],
    }


def binding_splits(scenes: Sequence[Sequence[ObjectBinding] | None], **measured_with: Any) -> dict[str, dict[str, Any]]:
    """Accuracy, leak rate and fill accuracy of groups of objects, in the layout of eval.difficulty.

    "objects": by the number of objects in the scene ("2", "3", ...); "shapes": "distinct", and "repeated" if another
    object of the scene has the same shape; "pairs": colour-shape pairs "seen" in training, and "heldout"; "relations":
    the relation that alone distinguishes an object. Groups without objects are left out; `without` counts the scenes
    without binding (None). `measured_with` is passed to eval.statistics.bootstrap.figure; intervals are clustered by
    scene. Returns

        {"pairs": {"without": 0, "groups": [{"group": "seen", "items": 98, "metrics": {"leak_rate": {...}, ...}}, ...]}}
    """
    judged = [scene for scene in scenes if scene is not None]
    splits: dict[str, dict[str, Any]] = {}
    for fact, group_of in SPLITS.items():
        labelled = [[(group_of(b, len(scene)), b) for b in scene] for scene in judged]
        groups = []
        for name in sorted({name for scene in labelled for name, _ in scene if name}, key=_rank):
            members = ([b for group, b in scene if group == name] for scene in labelled)
            groups.append(_group(name, [objects for objects in members if objects], measured_with))
        if groups:
            splits[fact] = {"without": len(scenes) - len(judged), "groups": groups}
    return splits


def _rank(group: str) -> int:
    """Sort key: numbers by value, of two names the harder group last."""
    return int(group) if group.isdigit() else int(group in HARD)


def _group(name: str, parts: list[list[ObjectBinding]], measured_with: dict[str, Any]) -> dict[str, Any]:
    """Figures of one group, given the objects of each scene that belong to it."""
    values, metrics = [binding_values(part) for part in parts], {}
    for metric in grouped(SCENES):
        rows = [(i, v) for i, of in enumerate(values) for v in of[metric] if v is not None]
        if rows:
            better, clusters = higher_is_better(metric), [i for i, _ in rows]
            metrics[metric] = figure([v for _, v in rows], clusters=clusters, higher_is_better=better, **measured_with)
    return {"group": name, "items": len(parts), "metrics": metrics}


def to_lab(image: np.ndarray) -> np.ndarray:
    """Convert (H,W,3) uint8 sRGB to float32 CIELAB under D65."""
    return cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)


def _nearest(
    lab: np.ndarray, object_map: np.ndarray, colours: Palette, backgrounds: Palette
) -> tuple[list[str], np.ndarray]:
    """Names of the candidates and the index (H,W) of each pixel's nearest one."""
    table = np.array([*colours.values(), *backgrounds.values()], np.uint8)[None]
    candidates = to_lab(table)[0]
    free = object_map == 0
    if free.any():
        candidates = np.vstack([candidates, np.median(lab[interior(free, rim_px(free.shape))], axis=0)])
    names = [*colours] + [BACKGROUND] * (len(candidates) - len(colours))
    # |p - c|^2 without |p|^2, which is the same for every candidate: one small product instead of (H,W,K,3)
    score = lab @ (-2.0 * candidates.T) + (candidates**2).sum(1)
    return names, score.argmin(-1)


def _detect(lab: np.ndarray, nearest: np.ndarray, names: list[str], mask: np.ndarray, label: int) -> tuple[str, str]:
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
        behind = _vote(nearest[interior(gap, rim)], names)
        return colour, "hollow" if behind == BACKGROUND else "plain"
    return colour, fill_of(lightness, inside, interior(mask, 2 * rim), max(lab.shape[:2]))


def _instance(
    thing: SceneObject, painted: np.ndarray, nearest: np.ndarray, names: list[str], object_map: np.ndarray
) -> tuple[float, float]:
    """Segment an object by what is painted where it should be, as COCO-MIG does with a detector.

    Args:
        thing: The object.
        painted: (H,W) bool, pixels that are no background.
        nearest: (H,W) index of each pixel's nearest candidate.
        names: Of the candidates.
        object_map: (H,W) label of each pixel's object.

    Returns:
        IoU of the segment and the object's mask, and the share of the segment that has the object's colour.
    """
    mask = object_map == thing.label
    # what lies on other objects is theirs
    _, parts = cv2.connectedComponents((painted & (mask | (object_map == 0))).astype(np.uint8), connectivity=4)
    segment = np.isin(parts, np.setdiff1d(parts[mask], [0]))
    if not segment.any():
        return 0.0, 0.0
    overlap = float((segment & mask).sum() / (segment | mask).sum())
    return overlap, float((nearest[segment] == names.index(thing.colour)).mean())


def _vote(nearest: np.ndarray, names: list[str]) -> str:
    """The name with the most votes; all background candidates count as one."""
    votes: dict[str, int] = {}
    for name, count in zip(names, np.bincount(nearest, minlength=len(names)), strict=True):
        votes[name] = votes.get(name, 0) + int(count)
    return max(votes, key=lambda name: votes[name])


def _compared(thing: SceneObject, colour: str, fill: str, others: set[str]) -> ObjectBinding:
    correct = colour == thing.colour
    leaked = not correct and colour in others
    return ObjectBinding(thing, colour, fill, correct, leaked, fill == thing.fill)
