"""Scenes for the judges of other benchmarks: the caption, and the words and the box of each object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ragaf_exp.core.types import Item

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the width and height


@dataclass(frozen=True)
class Thing:
    """An object of a scene."""

    noun: str
    colour: str
    phrase: str  # what the caption calls it
    box: Box


@dataclass(frozen=True)
class Scene:
    """A scene with the image that is judged."""

    key: str
    caption: str
    image: np.ndarray  # (H,W,3) uint8
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Written:
    """The keys of the scenes that were written, and for each reason the number of scenes that are left out."""

    keys: list[str]
    left_out: dict[str, int]
    objects: int


@dataclass(frozen=True)
class Figure:
    """One figure of a judge."""

    title: str
    value: float
    n: int | None  # images or objects; None where the judge does not say
    ci95: tuple[float, float] | None = None


def scene_of(item: Item, image: np.ndarray) -> Scene:
    """Describe an item, whose objects and their map must be known.

    Args:
        item: The item.
        image: (H,W,3) uint8, the image of it that is judged.
    """
    things = []
    for thing in item.objects:
        mask = None if item.object_map is None else item.object_map == thing.label
        if mask is not None and mask.any():
            things.append(Thing(thing.shape, thing.colour, item.caption[slice(*thing.span)], box_of(mask)))
    return Scene(item.key, item.caption, image, tuple(things))


def box_of(mask: np.ndarray) -> Box:
    """The smallest box around a mask (H,W) that is not empty."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (float(columns[0] / width), float(rows[0] / height), float((columns[-1] + 1) / width),
            float((rows[-1] + 1) / height))  # fmt: skip


def sorted_out(scenes: Iterable[Scene], reason: dict[str, set[str]]) -> tuple[list[Scene], dict[str, int]]:
    """Split scenes into those that are written and the counts of those that are not.

    Args:
        scenes: All scenes.
        reason: Reason -> keys of the scenes that are left out for it; the first reason counts.
    """
    left: dict[str, int] = {}
    taken = []
    for scene in scenes:
        why = next((text for text, keys in reason.items() if scene.key in keys), None)
        if why is None:
            taken.append(scene)
        else:
            left[why] = left.get(why, 0) + 1
    return taken, left
