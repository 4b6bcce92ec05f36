"""Rendering of SVG files at any size, by resvg."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError

MOST = 16_000_000  # bytes of a file


def read_svg(path: Path, size: int) -> np.ndarray:
    """Render an SVG into a square, keeping its aspect: RGBA (size, size, 4) uint8, not multiplied by alpha.

    Raises UserError if the file is missing or damaged, or resvg_py is not installed.
    """
    try:
        import resvg_py
    except ImportError:
        raise UserError(f"{path}: SVG files need resvg_py; pip install 'ragaf_exp[svg]', or use PNG files") from None
    try:
        if path.stat().st_size > MOST:
            raise UserError(f"{path}: has more than {MOST // 1_000_000} MB; simplify it")
        text = path.read_text("utf-8", "replace")
        picture = _rendered(resvg_py, text, width=size)
        picture = picture if picture.shape[0] <= size else _rendered(resvg_py, text, height=size)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise UserError(f"{path}: is damaged, or no SVG ({' '.join(str(error).split())[:100]}); replace it") from None
    out = np.zeros((size, size, 4), np.uint8)
    top, left = (size - picture.shape[0]) // 2, (size - picture.shape[1]) // 2
    out[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return out


def ink_of(rgba: np.ndarray) -> np.ndarray:
    """Measure how dark each pixel (H, W, 4) is over white: (H, W) float32 in [0, 1]."""
    grey = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return (1 - grey / 255) * (rgba[..., 3].astype(np.float32) / 255)


def _rendered(resvg, text: str, **side: int) -> np.ndarray:
    packed = bytes(resvg.svg_to_bytes(svg_string=text, skip_system_fonts=True, **side))
    bgra = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_UNCHANGED)
    if bgra is None or bgra.ndim != 3 or bgra.shape[2] != 4:
        raise ValueError("it has no picture")
    return cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA)
