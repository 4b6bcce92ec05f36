"""The regions of a recipe and their edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ragaf_exp.core.edits import RegionEdit, RegionEdits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Regions
from ragaf_exp.data.sizes import size_text
from ragaf_exp.inference.recipes.types import SketchRecipe
from ragaf_exp.regions.editing import rebuild

PLAIN = RegionEdit()


@dataclass(frozen=True)
class Applied:
    """The regions of a recipe and their edits, which are numbered by area, unlike the labels of a recipe made elsewhere."""

    regions: Regions
    edits: RegionEdits | None  # None where nothing is edited
    labels: list[int]  # the label in the recipe of each region

    def by_label(self, values: np.ndarray) -> np.ndarray:
        """Order values of the regions (N,...) by the recipe's labels; a label that does not occur has 0."""
        ordered = np.zeros((max(self.labels, default=-1) + 1, *values.shape[1:]), values.dtype)
        ordered[self.labels] = values[: len(self.labels)]
        return ordered


def apply(recipe: SketchRecipe, extract: Callable[[np.ndarray], Regions], size: tuple[int, int]) -> Applied:
    """Find the regions of a recipe.

    Labels that were not edited have the background and nesting of the extractor, so that a recipe without edits gives the
    image that `sample` gives.

    Args:
        recipe: The recipe.
        extract: The region extractor of the run: sketch (H,W) in [0,1] -> regions.
        size: Height and width of the images of the run.

    Raises:
        UserError: The recipe has another size, or samples nothing again.
    """
    if recipe.size != size:
        raise UserError(f"recipe: is {size_text(*recipe.size)}, and this run samples {size_text(*size)}; "
                        "draw it again at this size")  # fmt: skip
    regions, order = extract(strokes_of(recipe)), list[int]()
    if np.array_equal(regions.labels, recipe.labels):
        order = list(range(regions.count))
    else:
        regions, came = rebuild(recipe.labels)
        order = came.tolist()
    return Applied(regions, _edits(recipe, order), order)


def strokes_of(recipe: SketchRecipe) -> np.ndarray:
    """The drawing of a recipe, (H,W) float32 in [0,1], 1 = stroke."""
    return recipe.sketch.astype(np.float32) / 255


def _edits(recipe: SketchRecipe, order: list[int]) -> RegionEdits | None:
    """The edits by region index, given the label of each region."""
    by_label = dict(enumerate(recipe.regions))
    edits = tuple(by_label.get(label, PLAIN) for label in order)
    redo = frozenset(i for i, label in enumerate(order) if label in recipe.redo)
    if recipe.keep is None:
        plain = all(replace(edit, locked=False) == PLAIN for edit in edits)
        return None if plain else RegionEdits(edits)
    if not any(not edits[i].locked for i in redo):
        raise UserError("recipe: redo: names no region that is not locked; select one, or unlock it")
    return RegionEdits(edits, recipe.keep, redo, recipe.redo_strength, recipe.grow)
