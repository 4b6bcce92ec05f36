"""Masks from files in any convention: 0/1, 0/255, inverted, in the alpha channel, with soft edges.

Which pixels are the hole cannot always be read from a file. What was assumed is part of the result, and one line of log.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.decode import decode, read_labels

log = logging.getLogger(__name__)
HOLES = ("auto", "white", "black", "transparent", "opaque")
MOSTLY = 0.5  # share of white from which on a mask may be inverted
BORDER = 0.9  # share of white along the border of an inverted one
CLEAR = 24  # levels, of 255, within which compression noise stays around black and white


@dataclass(frozen=True)
class ReadMask:
    """A mask, and how its file was understood."""

    hole: np.ndarray  # (H,W) bool, True = to be painted
    soft: np.ndarray  # (H,W) float32 in [0,1]: the hole before it was cut at one half
    assumed: str  # one line

    @property
    def share(self) -> float:
        """Share of the image that the hole covers."""
        return float(self.hole.mean())


def read_mask(path: str | Path, hole: str = "auto", report: bool = True) -> ReadMask:
    """Read a mask.

    Args:
        path: An image file.
        hole: Which pixels are the hole: white (or 1), black (or 0), transparent or opaque. "auto" takes the transparent
            ones of a file with an alpha channel, else the white ones; the black ones if most of the image and nearly
            all of its border is white.
        report: Log what was assumed.

    Returns:
        The mask, with one line on what was assumed.

    Raises:
        UserError: The file can't be read, `hole` is unknown, or needs an alpha channel that the file lacks.
    """
    if hole not in HOLES:
        raise UserError(f"hole={hole}: must be one of {', '.join(HOLES)}")
    white, alpha, levels = _channels(path)
    if hole in ("transparent", "opaque") and alpha is None:
        raise UserError(f"{path}: has no alpha channel; set hole=white or hole=black")
    if alpha is not None and hole in ("auto", "transparent", "opaque"):
        soft, reason = _by_alpha(alpha, hole)
    else:
        soft, reason = _by_level(white, hole)
    mask = soft >= 0.5
    result = ReadMask(mask, soft, f"{path}: {levels}; {reason}, {mask.mean():.1%} of the image{_softness(soft)}")
    if report:
        log.info("%s", result.assumed)
    return result


def _channels(path: str | Path) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Return whiteness (H,W) in [0,1], alpha (H,W) in [0,1] or None, and a description of the values."""
    rgb, alpha = decode(path)
    if alpha is not None:
        return _grey(rgb), alpha.astype(np.float32) / 255, "an alpha channel"
    try:
        labels = read_labels(path)
    except UserError:
        return _grey(rgb), None, "colours, read as grey levels"
    top = int(labels.max(initial=0))
    if top <= 1:
        return labels.astype(np.float32), None, "values 0 and 1"
    grey = _grey(rgb)
    between = float(((grey * 255 > CLEAR) & (grey * 255 < 255 - CLEAR)).mean())
    return grey, None, "levels 0 to 255" if between else "levels 0 and 255"


def _grey(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def _by_alpha(alpha: np.ndarray, hole: str) -> tuple[np.ndarray, str]:
    if hole == "opaque":
        return alpha, "the opaque pixels are the hole (as given)"
    basis = "as given" if hole == "transparent" else "assumed; hole=opaque for the reverse"
    return 1 - alpha, f"the transparent pixels are the hole ({basis})"


def _by_level(white: np.ndarray, hole: str) -> tuple[np.ndarray, str]:
    if hole == "auto" and _inverted(white):
        reason = "white covers most of it and its border, so black is the hole (assumed; hole=white for the reverse)"
        return 1 - white, reason
    if hole == "black":
        return 1 - white, "black is the hole (as given)"
    basis = "as given" if hole == "white" else "assumed; hole=black for the reverse"
    return white, f"white is the hole ({basis})"


def _inverted(white: np.ndarray) -> bool:
    """Whether white is probably what stays. A mask that is white throughout is a full one."""
    on = white >= 0.5
    border = np.concatenate([on[0], on[-1], on[:, 0], on[:, -1]])
    return bool(MOSTLY < on.mean() < 1 and border.mean() >= BORDER)


def _softness(soft: np.ndarray) -> str:
    between = float(((soft * 255 > CLEAR) & (soft * 255 < 255 - CLEAR)).mean())
    return f"; soft edges ({between:.1%} of the pixels) are cut at one half" if between else ""
