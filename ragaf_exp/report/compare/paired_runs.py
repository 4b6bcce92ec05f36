"""A grid of the same test items in every run of a comparison: a row for each item, a column for each run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragaf_exp.config.stages import IMAGES
from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.safe_files import read_bounded
from ragaf_exp.data.images import read_image
from ragaf_exp.report.compare.compare import Comparison
from ragaf_exp.report.compare.runs import Member
from ragaf_exp.report.run.parse import Scene
from ragaf_exp.report.run.pictures import SCENES, SIDE, picture
from ragaf_exp.viz.grids import grid, png

FINAL = IMAGES[::-1]  # names of stages' pictures, the last stage first
ROWS = 8  # items in a PNG
MANY, SMALL = 4, 192  # from this many runs on pictures are small; their longest side in px


def grid_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows of `scene_grid` for the runs of a comparison.

    Items are matched by key; `check_comparable` has checked that they are the same in every run.
    """
    return scene_grid(comparison.members)


def scene_grid(members: list[Member]) -> list[dict[str, Any]]:
    """Items that at least two runs have pictures of, with the common pictures and each run's image."""
    keys, scenes = _shared_keys(members)
    side = SIDE if len(members) < MANY else SMALL
    return [_row(key, [of_run.get(key) for of_run in scenes], side) for key in keys[:SCENES]]


def save_grid(path: Path, members: list[tuple[str, Member]]) -> Path | None:
    """Write the grid as a PNG with the columns sketch, each run's image, and truth; None if there are no items."""
    keys, scenes = _shared_keys([member for _, member in members])
    cells, captions = [], []
    for key in keys[:ROWS]:
        present = [of_run[key] for of_run in scenes if key in of_run]
        sketch, truth = (next((s.pictures[n] for s in present if n in s.pictures), None) for n in ("sketch", "truth"))
        images = [next((s.pictures[n] for n in FINAL if s and n in s.pictures), None) for s in (o.get(key) for o in scenes)]
        cells.append([path and read_image(path, read_bounded(path)) for path in (sketch, *images, truth)])
        captions.append(present[0].caption)
    if not cells:
        return None
    picture = grid(cells, ["sketch", *(name.replace("_", " ") for name, _ in members), "truth"], captions)
    write_bytes(path, png(picture))
    return path


def _shared_keys(members: list[Member]) -> tuple[list[str], list[dict[str, Scene]]]:
    """Keys of items that at least two runs have pictures of, and each run's scenes by key."""
    scenes = [{scene.key: scene for scene in member.run.scenes} for member in members]
    keys = dict.fromkeys(key for of_run in scenes for key in of_run)
    return [key for key in keys if sum(key in of_run for of_run in scenes) > 1], scenes


def titles(runs: list[str]) -> list[str]:
    """Titles of the columns, given the runs' names."""
    return ["Sketch", *runs, "Truth"]


def _row(key: str, scenes: list[Scene | None], side: int) -> dict[str, Any]:
    present = [scene for scene in scenes if scene is not None]
    shown = [_image(scene, side) for scene in scenes]
    return {
        "key": key,
        "caption": present[0].caption,
        "cells": [_shared(present, "sketch", side), *shown, _shared(present, "truth", side)],
    }


def _shared(scenes: list[Scene], name: str, side: int) -> dict[str, Any]:
    path = next((scene.pictures[name] for scene in scenes if name in scene.pictures), None)
    return {"picture": picture(path, side) if path else None, "score": "", "wrong": ""}


def _image(scene: Scene | None, side: int) -> dict[str, Any]:
    """A run's image of the item, and the number of its correct colours."""
    name = next((name for name in FINAL if scene and name in scene.pictures), None)
    if name is None:
        return {"picture": None, "score": "", "wrong": ""}
    wrong = [f"{o['phrase']}: {o['found']}" for o in scene.objects if not o["correct"]]
    right = len(scene.objects) - len(wrong)
    caption = f"{right} of {len(scene.objects)} colours" if scene.objects else ""
    return {"picture": picture(scene.pictures[name], side), "score": caption, "wrong": "; ".join(wrong)}
