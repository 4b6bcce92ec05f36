"""Recipes in files."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import read_bounded
from ragaf_exp.data.uploads import STARTS
from ragaf_exp.inference.recipes.parse import parse_recipe
from ragaf_exp.inference.recipes.png import recipe_in
from ragaf_exp.inference.recipes.types import SketchRecipe


def read_recipe(path: Path) -> SketchRecipe | None:
    """Read the recipe of a drawing from a PNG or JSON file; None for a JSON file of anything else.

    Raises:
        UserError: The file is missing, a picture without a recipe, or its recipe is not valid or edits an image.
    """
    try:
        content = read_bounded(path.absolute())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give edits=FILE.json, or a PNG that the studio saved") from error
    try:
        read = recipe_in(content, str(path))
    except UserError:
        if content.startswith(tuple(STARTS)):
            raise
        return None
    if "schema" not in read:
        return None
    try:
        recipe = parse_recipe(read)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(recipe, SketchRecipe):
        raise UserError(f"{path}: the recipe edits an image; give image=, mask= and prompt= instead")
    return recipe
