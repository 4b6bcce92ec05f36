"""Recipes as JSON, for a browser (arrays as bytes) or for a file (arrays as PNG, which are far shorter)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from ragaf_exp.data.uploads import data_url, png, to_base64
from ragaf_exp.inference.recipes.parse import MAX_REGIONS
from ragaf_exp.inference.recipes.types import SCHEMA, ImageRecipe, Recipe, SketchRecipe
from ragaf_exp.regions.points import region_points

LONGEST = 2**20  # characters of an image that is written into the recipe of its result


def to_json(recipe: Recipe, run: dict[str, Any], packed: bool = False) -> dict[str, Any]:
    """Describe a recipe as JSON.

    Args:
        recipe: The recipe.
        run: Name and checksum of the run that sampled.
        packed: Write arrays as PNG, for a file.
    """
    settings = {key: value for key, value in asdict(recipe.settings).items() if value is not None}
    common = {"schema": SCHEMA, "caption": recipe.caption, **settings, "run": run}
    if isinstance(recipe, ImageRecipe):
        return {**common, **_image(recipe)}
    return {**common, **_sketch(recipe, _packed if packed else to_base64)}


def _sketch(recipe: SketchRecipe, array: Callable[[np.ndarray], str]) -> dict[str, Any]:
    height, width = recipe.size
    content = {"kind": "sketch", "width": width, "height": height, "strokes": recipe.strokes,
               "sketch": array(recipe.sketch), "labels": array(recipe.labels.astype("<i2")),
               "regions": _regions(recipe)}  # fmt: skip
    if recipe.keep is None:
        return content
    return {**content, "keep": data_url(png(recipe.keep)), "redo": sorted(recipe.redo),
            "redo_strength": recipe.redo_strength, "grow": recipe.grow}  # fmt: skip


def _regions(recipe: SketchRecipe) -> list[dict[str, Any]]:
    count = int(recipe.labels.max(initial=-1)) + 1
    present = set(np.unique(recipe.labels).tolist())
    points = region_points(recipe.labels, count)
    return [{"at": list(points[i]) if i in present else None, **asdict(edit)}
            for i, edit in enumerate(recipe.regions[:count])]  # fmt: skip


def _image(recipe: ImageRecipe) -> dict[str, Any]:
    content: dict[str, Any] = {"kind": "edit", "context": recipe.context, "feather": recipe.feather}
    if recipe.task:
        content["task"] = recipe.task
    if recipe.resamplings is not None:
        content["resamplings"] = recipe.resamplings
    for key in ("image", "mask", "sketch", "object"):
        picture = getattr(recipe, key)
        text = None if picture is None else base64.b64encode(picture).decode()
        content[key] = text if text is None or len(text) <= LONGEST else None
    return content


def _packed(array: np.ndarray) -> str:
    """Encode as a grey PNG; -1 becomes 255, which is no label."""
    assert MAX_REGIONS < 255, "labels fit a byte"
    return data_url(png(np.where(array < 0, 255, array).astype(np.uint8)))
