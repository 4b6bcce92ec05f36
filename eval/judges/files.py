"""Files of the judges: pictures at the size that they expect, and their results as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import read_bounded

LONGEST_NAME = 240  # bytes of a file name, which most file systems limit to 255


def save(image: np.ndarray, path: Path, side: int = 0) -> None:
    """Write an image in the format that its suffix names.

    Args:
        image: (H,W,3) uint8.
        path: The file, whose folder is made.
        side: Enlarge it to a square of this many pixels; 0 = as it is.
    """
    picture = Image.fromarray(image)
    if side:
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    picture.save(path, **options)


def read_json(path: Path) -> Any:
    """Read a result file. Raises UserError where it is missing or no JSON."""
    return _parsed(path, read_text(path))


def read_lines(path: Path) -> list[Any]:
    """Read a result file with one JSON value per line. Raises UserError as `read_json`."""
    return [_parsed(path, line) for line in read_text(path).splitlines() if line.strip()]


def read_text(path: Path) -> str:
    """Read a result file. Raises UserError where it is missing or no text."""
    try:
        return read_bounded(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as text ({error}); give the file that the judge wrote") from error


def not_theirs(path: Path, what: str) -> UserError:
    """The error for a file of another kind. what: what it lacks."""
    return UserError(f"{path}: {what}; give the file that this judge wrote for the exported folder")


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); give the file that the judge wrote") from error
