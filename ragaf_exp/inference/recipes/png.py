"""Recipes in PNG files, as a text chunk that is ignored by other programs."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.uploads import STARTS, check_picture, read_object

CHUNK = "ragaf"  # keyword of the iTXt chunk
LONGEST = 900_000  # characters; Pillow reads at most 2**20 of a text


def with_recipe(picture: np.ndarray, recipe: dict[str, Any]) -> bytes:
    """Write a PNG that holds a recipe; a recipe that is too long for a text chunk is written without its images.

    Args:
        picture: (H,W,3) or (H,W,4) uint8.
        recipe: The JSON of `to_json`.
    """
    text = json.dumps(recipe)
    if len(text) > LONGEST:
        text = json.dumps({**recipe, **{key: None for key in ("keep", "image", "mask", "object") if key in recipe}})
    info = PngInfo()
    info.add_itxt(CHUNK, text, zip=True)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def recipe_in(content: bytes, what: str) -> dict[str, Any]:
    """Read the recipe of a PNG or of a JSON file; `parse_recipe` checks it.

    Args:
        content: The content of the file.
        what: Its name, for messages.

    Raises:
        UserError: There is none.
    """
    if not content.startswith(tuple(STARTS)):
        return read_object(content)
    check_picture(content, what)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            text = picture.text.get(CHUNK)
    except Exception as error:  # another format, or a damaged chunk
        raise UserError(f"{what}: holds no recipe; take a PNG that the studio saved") from error
    if text is None:
        raise UserError(f"{what}: holds no recipe; take a PNG that the studio saved")
    return read_object(text.encode())
