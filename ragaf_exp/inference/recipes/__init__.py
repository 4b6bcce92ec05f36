"""Recipes: everything that an image of the studio was made from, as JSON, in a PNG or in a request.

`write` is not imported here, as it needs PyTorch, which is slow to import.
"""

from ragaf_exp.inference.recipes.parse import RANGES, parse_recipe
from ragaf_exp.inference.recipes.png import recipe_in, with_recipe
from ragaf_exp.inference.recipes.types import ImageRecipe, Recipe, Settings, SketchRecipe

__all__ = [
    "RANGES",
    "ImageRecipe",
    "Recipe",
    "Settings",
    "SketchRecipe",
    "parse_recipe",
    "recipe_in",
    "with_recipe",
]
