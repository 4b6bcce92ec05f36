"""Inputs of the pipeline in the forms that users have them in: PIL images, arrays, tensors and paths."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from ragaf_exp.core.edits import RegionEdits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Regions
from ragaf_exp.data.fit import fit_image
from ragaf_exp.data.images import read_drawing, read_image
from ragaf_exp.data.masks.read import read_mask
from ragaf_exp.inference.edit_files import EditFile, parse_edits, read_edits

Picture: TypeAlias = "Image.Image | np.ndarray | torch.Tensor | str | Path"
Edits: TypeAlias = "RegionEdits | EditFile | Mapping[str, Any] | str | Path"


def drawing_of(sketch: Picture, polarity: str) -> np.ndarray:
    """Return a sketch as (H,W) float32 in [0,1], 1 = stroke.

    Args:
        sketch: A picture or its path, read like a file of `ragaf_exp.sample`; an array or tensor of floats (H,W) or
            (1,H,W) in [0,1] is taken as strokes, 1 = stroke.
        polarity: dark (strokes on a light ground), light or auto, for pictures.

    Raises:
        UserError: It can't be read.
    """
    if isinstance(sketch, str | Path):
        return read_drawing(sketch, polarity)
    values = _array(sketch)
    if values is None or values.dtype == np.uint8:
        return read_drawing("sketch", polarity, _png(sketch if values is None else Image.fromarray(values)))
    strokes = values.squeeze().astype(np.float32)
    if strokes.ndim != 2 or not np.isfinite(strokes).all() or strokes.min() < 0 or strokes.max() > 1:
        raise UserError("sketch: floats must be strokes (H,W) in [0,1], 1 = stroke; give a picture otherwise")
    return strokes


def image_of(image: Picture) -> np.ndarray:
    """Return a picture as (H,W,3) uint8; arrays and tensors of floats are (H,W,3) or (3,H,W) in [0,1]."""
    if isinstance(image, str | Path):
        return read_image(image)
    values = _array(image)
    if values is None:
        return read_image("image", _png(image))
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[2] not in (1, 3):
        values = values.transpose(1, 2, 0)
    if values.dtype != np.uint8:
        values = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    if values.ndim != 3 or values.shape[2] != 3:
        raise UserError("image: must be RGB, (H,W,3) or (3,H,W)")
    return values


def hole_of(mask: Picture) -> np.ndarray:
    """Return a mask as (H,W) bool, True = to be painted: white in a picture, above 0.5 in an array of floats."""
    if isinstance(mask, str | Path):
        return read_mask(mask, "white").hole
    values = _array(mask)
    if values is None:
        values = np.asarray(mask.convert("L"))  # type: ignore[union-attr]
    hole = values.squeeze() > (127 if values.dtype == np.uint8 else 0.5)
    if hole.ndim != 2:
        raise UserError("mask_image: must have one channel, (H,W)")
    return hole


def edits_of(edits: Edits | None, regions: Regions, keep: Picture | None, size: tuple[int, int]) -> RegionEdits | None:
    """Assign edits to the regions of a drawing.

    Args:
        edits: RegionEdits, or the content or path of a file of edits as `ragaf_exp.sample` takes it.
        regions: The drawing's regions.
        keep: An image of which only the edited regions are sampled again.
        size: Height and width of the image in pixels.

    Raises:
        UserError: They are not valid, or name no region of the drawing.
    """
    if edits is None or isinstance(edits, RegionEdits):
        return edits
    if isinstance(edits, Mapping):
        file = parse_edits(json.loads(json.dumps(dict(edits))), Path("edits"))
    else:
        file = edits if isinstance(edits, EditFile) else read_edits(Path(edits))
    return file.resolve(regions, None if keep is None else fit_image(image_of(keep), size, "pad"))


def _array(value: Any) -> np.ndarray | None:
    """Return the values of an array or tensor; None for anything else."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return value if isinstance(value, np.ndarray) else None


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
