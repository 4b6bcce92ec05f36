"""Reading of images: photos to RGB, drawings to stroke maps. Problems with a file raise UserError only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.decode import MAX_PIXELS, SUFFIXES, check_header, decode
from ragaf_exp.data.fit import fit_drawing, fit_image
from ragaf_exp.data.ground import Ground, evened, find_ground, level_of
from ragaf_exp.data.ruling import without_ruling

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "check_header",
    "fit_drawing",
    "fit_image",
    "read_drawing",
    "read_image",
    "read_rgba",
    "stroke_share",
    "warn_of_odd",
]

log = logging.getLogger(__name__)

POLARITIES = ("auto", "dark", "light")
FAINTEST = 25  # range of grey levels, of 255, below which a drawing is blank
INK_SPREAD = 0.15  # luminance deviation up to which opaque pixels count as one ink
MOST = 0.3  # largest share of strokes in a usual drawing
NAMED = 3  # odd drawings named in a warning
LEAST_SHADOW = 0.15  # share of the darker tone from which on it may be a shadow
GRAIN = 0.1  # the lowest share of the strokes' range is the paper's


def read_image(path: str | Path, content: bytes | None = None, side: int = 0) -> np.ndarray:
    """Read an image as uint8 RGB (H, W, 3): its first frame, with EXIF applied, alpha over white. Raises UserError.

    Args:
        path: The file.
        content: Its bytes, if they have been read already.
        side: Pixels that the shorter side must keep, so that a larger JPEG is decoded at a fraction of its size; 0: all.
    """
    rgb, alpha = decode(path, content, side)
    return rgb if alpha is None else _over(rgb, alpha[..., None], 255)


def read_rgba(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read RGB uint8 (H, W, 3), not multiplied by alpha, and alpha float32 (H, W) in [0, 1]. Raises UserError."""
    rgb, alpha = decode(path)
    return rgb, np.ones(rgb.shape[:2], np.float32) if alpha is None else alpha.astype(np.float32) / 255


def read_drawing(path: str | Path, polarity: str = "auto", content: bytes | None = None) -> np.ndarray:
    """Read a line drawing as a stroke map.

    Ink on a transparent ground is read from its alpha. A drawing without contrast (all white, all black) has no strokes.

    Args:
        path: The file.
        polarity: "dark" for dark strokes on a light ground, "light" for the reverse, "auto" to decide: the strokes are
            the minority, or differ from the border if neither tone is.
        content: The file's bytes, if they have been read already.

    Returns:
        (H, W) float32 in [0, 1], 1 = stroke.

    Raises:
        UserError: The polarity is unknown or the file can't be read.
    """
    if polarity not in POLARITIES:
        raise UserError(f"polarity={polarity!r}: must be {', '.join(POLARITIES)}")
    rgb, alpha = decode(path, content)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if alpha is not None:
        if polarity == "auto" and _is_ink(grey, alpha):
            return _stretch(alpha, usual=0)
        grey = _over(grey, alpha, 0 if polarity == "light" else 255)
    if polarity == "auto":
        return _minority(grey)
    return _strokes(grey if polarity == "dark" else 255 - grey)[0]


def stroke_share(drawing: np.ndarray) -> float:
    """Measure the share of strokes in a drawing (H, W) in [0, 1]."""
    return float((drawing > 0.5).mean())


def warn_of_odd(shares: Mapping[str | Path, float]) -> None:
    """Log one line about drawings without strokes or with more than MOST; `shares` maps path to share of strokes."""
    odd = [f"{path}: {_oddity(share)}" for path, share in shares.items() if not 0 < share <= MOST]
    if odd:
        more = f"; and {len(odd) - NAMED} more of {len(shares)} drawings" if len(odd) > NAMED else ""
        log.warning("%s%s; check the picture, or set polarity=dark or light", "; ".join(odd[:NAMED]), more)


def _oddity(share: float) -> str:
    if share == 0:
        return "nothing in it is stroke (a blank page, or a first frame that is blank)"
    return f"{share:.2f} of it is stroke (usual is up to {MOST})"


def _minority(grey: np.ndarray) -> np.ndarray:
    """Extract strokes (H, W) of unknown polarity: those that cover less of the picture once the light is even."""
    share = _dark_share(grey)
    light = _ground_is_light(grey, share)
    first, second = (grey, 255 - grey) if light else (255 - grey, grey)
    strokes, ground = _strokes(first)
    if min(share, 1 - share) < LEAST_SHADOW:  # one tone is too rare to be a shadow
        return strokes
    inverse_strokes, inverse_ground = _strokes(second)
    varies = any(one is not None and one.uneven for one in (ground, inverse_ground))
    if not varies or not inverse_strokes.any():
        return strokes
    return inverse_strokes if _off_paper(inverse_strokes, inverse_ground) < _off_paper(strokes, ground) else strokes


def _off_paper(strokes: np.ndarray, ground: Ground | None) -> float:
    """Measure the share that is stroke, table, or lighter than the paper, which is larger for the wrong polarity."""
    share = stroke_share(strokes)
    return share if ground is None else share + float(ground.table.mean()) + ground.lines


def _strokes(grey: np.ndarray) -> tuple[np.ndarray, Ground | None]:
    """Extract strokes (H, W) float32 in [0, 1] of dark ink on light paper, and the ground unless it is even."""
    ground = find_ground(grey, GRAIN * (level_of(grey, 0.95) - level_of(grey, 0.001)))
    ink = 255 - (grey if ground is None else evened(grey, ground))
    return without_ruling(_stretch(ink, _usual(ink))), ground


def _over(values: np.ndarray, alpha: np.ndarray, ground: int) -> np.ndarray:
    """Composite uint8 values over a uniform ground by their alpha."""
    cover = alpha.astype(np.uint16)
    return ((values * cover + ground * (255 - cover) + 127) // 255).astype(np.uint8)


def _is_ink(grey: np.ndarray, alpha: np.ndarray) -> bool:
    """Whether the opaque part is one tone on less than half of the picture: ink, not a cut-out object."""
    step = max(1, round((grey.size / 1e6) ** 0.5))  # a sample suffices for a large picture
    light, cover = (values[::step, ::step].astype(np.float32) / 255 for values in (grey, alpha))
    weight = float(cover.sum())
    if weight == 0 or weight > 0.5 * cover.size:
        return weight == 0
    mean = float((light * cover).sum()) / weight
    return float((cover * (light - mean) ** 2).sum()) / weight <= INK_SPREAD**2


def _dark_share(grey: np.ndarray) -> float:
    """Measure the share of the picture in the darker half of its range."""
    return float((grey < (int(grey.min()) + int(grey.max())) / 2).mean())


def _ground_is_light(grey: np.ndarray, share: float) -> bool:
    """Whether the ground is light: by the share of the dark tone, or by the border if neither tone is a clear majority."""
    if 0.35 < share < 0.65:
        dark = grey < (int(grey.min()) + int(grey.max())) / 2
        edge = max(2, round(0.04 * min(grey.shape)))
        dark[edge:-edge, edge:-edge] = False
        inner = max(grey.shape[0] - 2 * edge, 0) * max(grey.shape[1] - 2 * edge, 0)
        share = float(dark.sum()) / (grey.size - inner)
    return share < 0.5


def _counts(ink: np.ndarray) -> np.ndarray:
    """Count the pixels up to each grey level (256,)."""
    return np.cumsum(cv2.calcHist([ink], [0], None, [256], [0, 256]).ravel().astype(np.int64))


def _usual(ink: np.ndarray) -> int:
    """Return the ground's grey level: the median of the lighter-inked half of the range."""
    counts = _counts(ink)
    below = counts[(int(ink.min()) + int(ink.max())) // 2]
    return int(np.searchsorted(counts, (below + 1) // 2))


def _stretch(ink: np.ndarray, usual: int) -> np.ndarray:
    """Scale uint8 ink (H, W) to float32 in [0, 1], from the ground's grey level to that of the strongest strokes."""
    dense = int(np.searchsorted(_counts(ink), 0.999 * ink.size))
    most = max(dense, (dense + int(ink.max())) // 2)
    if most - usual < FAINTEST:
        return np.zeros(ink.shape, np.float32)
    levels = (np.arange(256, dtype=np.float32) - usual) / (most - usual)
    return np.clip((levels - GRAIN) / (1 - 2 * GRAIN), 0, 1)[ink]
