"""Parses recipes, which may come from strangers. Everything invalid raises a UserError that names the key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ragaf_exp.core.edits import GROWTH, STRENGTH, STRONGEST, RegionEdit
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.printable import printable
from ragaf_exp.data.uploads import check_picture, from_base64, read_base64, read_rgb
from ragaf_exp.inference.recipes.types import SCHEMA, ImageRecipe, Recipe, Settings, SketchRecipe

MAX_REGIONS, MAX_PROMPT, MAX_CAPTION = 64, 200, 400  # regions, characters
MAX_SIDE = 2048  # pixels of a sketch
MAX_STROKES, MAX_POINTS = 2000, 20_000
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**53 - 1), "steps": (1, 200), "guidance": (0, 30), "strength": (0.05, 1), "redo_strength": (0.05, 1),
    "grow": (0, 0.5), "importance": (0, STRONGEST), "outline": (0, STRONGEST), "start": (0, 1), "end": (0, 1),
    "resamplings": (1, 20), "context": (0, 4), "feather": (0, 100),
}  # fmt: skip
SETTINGS = ("seed", "steps", "guidance", "scheduler", "strength")
WHOLE = ("seed", "steps", "resamplings")  # integers
COMMON = {"schema", "kind", "caption", "run", *SETTINGS}
SKETCH = {*COMMON, "width", "height", "strokes", "sketch", "labels", "regions", "keep", "redo", "redo_strength", "grow"}
IMAGE = {*COMMON, "image", "mask", "sketch", "object", "task", "resamplings", "context", "feather"}
REGION = {"at", "prompt", "importance", "outline", "locked", "start", "end"}


def parse_recipe(content: Mapping[str, Any]) -> Recipe:
    """Parse a recipe.

    Raises:
        UserError: A key is missing, unknown, of the wrong type or out of range, or the schema is newer.
    """
    schema = content.get("schema")
    if type(schema) is not int or schema > SCHEMA:
        raise UserError(f"recipe: schema={_shown(schema)}: this version reads {SCHEMA}; update ragaf_exp")
    kinds: dict[Any, Callable[[Mapping[str, Any]], Recipe]] = {"sketch": _sketch, "edit": _image}
    kind = content.get("kind", "sketch")
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"recipe: kind={_shown(kind)}: must be one of {', '.join(kinds)}")
    return kinds[kind](content)


def number(content: Mapping[str, Any], key: str, default: Any) -> Any:
    """Read a number within its range; the default where it is missing or null.

    Args:
        content: The object that may have it.
        key: Its key, which has an entry in RANGES.
        default: The value otherwise.

    Raises:
        UserError: It is not a number, or out of range.
    """
    value = content.get(key)
    if value is None:
        return default
    low, high = RANGES[key]
    whole = key in WHOLE
    valid = type(value) is int or (type(value) is float and (not whole or value.is_integer()))
    if not valid or not low <= value <= high:  # also false for NaN
        kind = "a whole number" if whole else "a number"
        raise UserError(f"recipe: {key}={_shown(value)}: must be {kind} from {low:g} to {high:g}")
    return int(value) if whole else float(value)


def _sketch(content: Mapping[str, Any]) -> SketchRecipe:
    _check_keys(content, SKETCH)
    height, width = _side(content, "height"), _side(content, "width")
    labels = _grey(content.get("labels"), "<i2", (height, width), "labels")
    return SketchRecipe(
        _grey(content.get("sketch"), "u1", (height, width), "sketch"),
        _checked(labels),
        text(content, "caption", MAX_CAPTION),
        tuple(_region(entry) for entry in _list(content, "regions", MAX_REGIONS)),
        _settings(content),
        _image_to_keep(content.get("keep"), (height, width)),
        _redo(content, int(labels.max(initial=-1)) + 1),
        number(content, "redo_strength", STRENGTH),
        number(content, "grow", GROWTH),
        _strokes(content),
    )


def _image(content: Mapping[str, Any]) -> ImageRecipe:
    _check_keys(content, IMAGE)
    if content.get("image") is None:
        raise UserError("recipe: image: missing; choose the image to edit")
    image, mask, sketch, inserted = (_picture(content.get(key), key) for key in ("image", "mask", "sketch", "object"))
    assert image is not None, "checked above"
    return ImageRecipe(
        image, mask, text(content, "caption", MAX_CAPTION), sketch, inserted, text(content, "task", 64), _settings(content),
        number(content, "resamplings", None), number(content, "context", 0.5), number(content, "feather", 0.0),
    )  # fmt: skip


def _settings(content: Mapping[str, Any]) -> Settings:
    scheduler = text(content, "scheduler", 32) or None
    return Settings(number(content, "seed", 0), number(content, "steps", None), number(content, "guidance", None),
                    scheduler, number(content, "strength", None))  # fmt: skip


def text(content: Mapping[str, Any], key: str, longest: int) -> str:
    """Read a text, "" where it is missing or null.

    Args:
        content: The object that may have it.
        key: Its key.
        longest: Most characters.

    Raises:
        UserError: It is not a text, or too long.
    """
    value = content.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"recipe: {key}: must be a text")
    if len(value) > longest:
        raise UserError(f"recipe: {key}: has {len(value)} characters; at most {longest} are allowed")
    return value


def _region(entry: Any) -> RegionEdit:
    if not isinstance(entry, dict):
        raise UserError("recipe: regions: each must be an object")
    _check_keys(entry, REGION)
    locked = entry.get("locked", False)
    if type(locked) is not bool:
        raise UserError(f"recipe: locked={_shown(locked)}: must be true or false")
    return RegionEdit(text(entry, "prompt", MAX_PROMPT), number(entry, "importance", 1.0), number(entry, "outline", 1.0),
                      locked, number(entry, "start", 0.0), number(entry, "end", 1.0))  # fmt: skip


def _redo(content: Mapping[str, Any], count: int) -> frozenset[int]:
    redo = _list(content, "redo", MAX_REGIONS)
    if wrong := [value for value in redo if type(value) is not int or not 0 <= value < count]:
        raise UserError(f"recipe: redo={_shown(wrong[0])}: must be a region from 0 to {count - 1}")
    return frozenset(redo)


def _strokes(content: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Check the strokes, from which only the page draws: what it gets back must not be anything else."""
    if content.get("strokes") is None:
        return None
    strokes, points = _list(content, "strokes", MAX_STROKES), 0
    for stroke in strokes:
        if not isinstance(stroke, dict) or stroke.keys() - {"points", "width", "erase"}:
            raise UserError("recipe: strokes: each must be an object of points, width and erase")
        listed = stroke.get("points")
        valid = isinstance(listed, list) and all(map(_is_point, listed)) and _is_share(stroke.get("width", 0.01))
        if not valid or type(stroke.get("erase", False)) is not bool:
            raise UserError("recipe: strokes: points must be [x, y] near the picture, width a share of its side")
        points += len(listed or ())
    if points > MAX_POINTS:
        raise UserError(f"recipe: strokes: have {points} points; at most {MAX_POINTS} are allowed")
    return strokes


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and 2 <= len(value) <= 3 and all(map(_is_share, value))


def _is_share(value: Any) -> bool:
    """Whether this is a number in [-1,2]: lines may begin and end outside the picture."""
    return type(value) in (int, float) and -1 <= value <= 2


def _grey(value: Any, dtype: str, shape: tuple[int, int], what: str) -> np.ndarray:
    """Read an array, as its bytes in base64 or as a grey PNG, in which 255 stands for -1."""
    if not (isinstance(value, str) and value.startswith("data:image/png")):
        return from_base64(value, dtype, shape, f"recipe: {what}")
    rgb, _ = read_rgb(read_base64(value, f"recipe: {what}"), f"recipe: {what}")
    _check_size(rgb.shape, shape, what)
    values = rgb[..., 0].astype(dtype)
    return np.where(values == 255, -1, values).astype(dtype) if np.dtype(dtype).kind == "i" else values


def _checked(labels: np.ndarray) -> np.ndarray:
    if labels.max(initial=-1) >= MAX_REGIONS or labels.min(initial=0) < -1:
        raise UserError(f"recipe: labels: must be from -1 (no region) to {MAX_REGIONS - 1}; merge some regions first")
    return labels


def _image_to_keep(value: Any, shape: tuple[int, int]) -> np.ndarray | None:
    if value is None:
        return None
    rgb, _ = read_rgb(read_base64(value, "recipe: keep"), "recipe: keep")
    _check_size(rgb.shape, shape, "keep")
    return rgb


def _check_size(given: tuple[int, ...], wanted: tuple[int, int], what: str) -> None:
    if given[:2] != wanted:
        raise UserError(f"recipe: {what}: is {given[1]}x{given[0]}, and {wanted[1]}x{wanted[0]} is needed")


def _picture(value: Any, what: str) -> bytes | None:
    if value is None:
        return None
    content = read_base64(value, f"recipe: {what}")
    check_picture(content, f"recipe: {what}")
    return content


def _side(content: Mapping[str, Any], key: str) -> int:
    value = content.get(key)
    if type(value) is not int or not 1 <= value <= MAX_SIDE:
        raise UserError(f"recipe: {key}={_shown(value)}: must be from 1 to {MAX_SIDE}")
    return value


def _list(content: Mapping[str, Any], key: str, most: int) -> list[Any]:
    value = content.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise UserError(f"recipe: {key}: must be a list of at most {most}")
    return value


def _shown(value: Any) -> str:
    """A value for a message: short, and in one line."""
    return printable(value)[:32]


def _check_keys(content: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(map(str, content.keys() - known)):
        raise UserError(f"recipe: unknown key {_shown(unknown[0])}; known are {', '.join(sorted(known))}")
