"""Reads pictures: photos to RGB, drawings to stroke maps; fits both to a square. Raises UserError only."""

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
INK_SPREAD = 0.15  # luminance deviation up to which what is opaque counts as one ink
MOST = 0.3  # share of the picture that strokes take at most in a usual drawing
NAMED = 3  # odd drawings named in a warning
LEAST_SHADOW = 0.15  # share of the darker tone from which on it may be a shadow
GRAIN = 0.1  # the lowest share of the strokes' range is the paper's


def read_image(path: str | Path, content: bytes | None = None) -> np.ndarray:
    """A picture as uint8 RGB (H, W, 3): first frame, EXIF applied, alpha on white. Raises UserError.

    content: of the file, where it has been read already.
    """
    rgb, alpha = decode(path, content)
    return rgb if alpha is None else _over(rgb, alpha[..., None], 255)


def read_rgba(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """RGB uint8 (H, W, 3) as stored under the alpha, and alpha float32 (H, W) in [0, 1]. Raises UserError."""
    rgb, alpha = decode(path)
    return rgb, np.ones(rgb.shape[:2], np.float32) if alpha is None else alpha.astype(np.float32) / 255


def read_drawing(path: str | Path, polarity: str = "auto") -> np.ndarray:
    """A line drawing as float32 (H, W) in [0, 1], 1 = stroke. Raises UserError.

    polarity "dark": dark strokes on a light ground; "light": the reverse; "auto": the strokes are the
    minority, or differ from the border where neither tone is. Ink on a transparent ground is read from its
    alpha. A drawing without contrast (all white, all black) has no strokes.
    """
    if polarity not in POLARITIES:
        raise UserError(f"polarity={polarity!r}: must be {', '.join(POLARITIES)}")
    rgb, alpha = decode(path)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if alpha is not None:
        if polarity == "auto" and _is_ink(grey, alpha):
            return _stretch(alpha, usual=0)
        grey = _over(grey, alpha, 0 if polarity == "light" else 255)
    if polarity == "auto":
        return _minority(grey)
    return _strokes(grey if polarity == "dark" else 255 - grey)[0]


def stroke_share(drawing: np.ndarray) -> float:
    """Share of a drawing (H, W) in [0, 1] that is stroke."""
    return float((drawing > 0.5).mean())


def warn_of_odd(shares: Mapping[str | Path, float]) -> None:
    """Log one line about the drawings, by path, that have no strokes or whose strokes take more than MOST."""
    odd = [f"{path}: {_oddity(share)}" for path, share in shares.items() if not 0 < share <= MOST]
    if odd:
        more = f"; and {len(odd) - NAMED} more of {len(shares)} drawings" if len(odd) > NAMED else ""
        log.warning("%s%s; check the picture, or set polarity=dark or light", "; ".join(odd[:NAMED]), more)


def _oddity(share: float) -> str:
    if share == 0:
        return "nothing in it is stroke (a blank page, or a first frame that is blank)"
    return f"{share:.2f} of it is stroke (usual is up to {MOST})"


def _minority(grey: np.ndarray) -> np.ndarray:
    """The strokes (H, W) of a picture of unknown polarity: what takes less of it, once the light is even."""
    share = _dark_share(grey)
    light = _ground_is_light(grey, share)
    first, second = (grey, 255 - grey) if light else (255 - grey, grey)
    strokes, ground = _strokes(first)
    if min(share, 1 - share) < LEAST_SHADOW:  # one tone is too rare to be a shadow
        return strokes
    others, other = _strokes(second)
    varies = any(found is not None and found.uneven for found in (ground, other))
    if not varies or not others.any():
        return strokes
    return others if _off_paper(others, other) < _off_paper(strokes, ground) else strokes


def _off_paper(strokes: np.ndarray, ground: Ground | None) -> float:
    """Share of the picture that is stroke, table, or lighter than the paper: most where the polarity is wrong."""
    share = stroke_share(strokes)
    return share if ground is None else share + float(ground.table.mean()) + ground.lines


def _strokes(grey: np.ndarray) -> tuple[np.ndarray, Ground | None]:
    """Strokes (H, W) float32 in [0, 1] of dark ink on a light ground (H, W) uint8, and that ground unless it is even."""
    ground = find_ground(grey, GRAIN * (level_of(grey, 0.95) - level_of(grey, 0.001)))
    ink = 255 - (grey if ground is None else evened(grey, ground))
    return without_ruling(_stretch(ink, _usual(ink))), ground


def _over(values: np.ndarray, alpha: np.ndarray, ground: int) -> np.ndarray:
    """uint8 values over a uniform ground by their alpha."""
    cover = alpha.astype(np.uint16)
    return ((values * cover + ground * (255 - cover) + 127) // 255).astype(np.uint8)


def _is_ink(grey: np.ndarray, alpha: np.ndarray) -> bool:
    """Whether the opaque part is one tone on less than half of the picture: ink, not an object cut out."""
    step = max(1, round((grey.size / 1e6) ** 0.5))  # a sample will do for a large picture
    light, cover = (values[::step, ::step].astype(np.float32) / 255 for values in (grey, alpha))
    weight = float(cover.sum())
    if weight == 0 or weight > 0.5 * cover.size:
        return weight == 0
    mean = float((light * cover).sum()) / weight
    return float((cover * (light - mean) ** 2).sum()) / weight <= INK_SPREAD**2


def _dark_share(grey: np.ndarray) -> float:
    """Share of the picture in the darker half of its range."""
    return float((grey < (int(grey.min()) + int(grey.max())) / 2).mean())


def _ground_is_light(grey: np.ndarray, share: float) -> bool:
    """By the share of the dark tone; by the border where neither tone clearly has the majority."""
    if 0.35 < share < 0.65:
        dark = grey < (int(grey.min()) + int(grey.max())) / 2
        edge = max(2, round(0.04 * min(grey.shape)))
        dark[edge:-edge, edge:-edge] = False
        inner = max(grey.shape[0] - 2 * edge, 0) * max(grey.shape[1] - 2 * edge, 0)
        share = float(dark.sum()) / (grey.size - inner)
    return share < 0.5


def _counts(ink: np.ndarray) -> np.ndarray:
    """How many pixels have at most each grey level (256,)."""
    return np.cumsum(cv2.calcHist([ink], [0], None, [256], [0, 256]).ravel().astype(np.int64))


def _usual(ink: np.ndarray) -> int:
    """The ground's grey level: the median of the lighter-inked half of the range."""
    counts = _counts(ink)
    below = counts[(int(ink.min()) + int(ink.max())) // 2]
    return int(np.searchsorted(counts, (below + 1) // 2))


def _stretch(ink: np.ndarray, usual: int) -> np.ndarray:
    """uint8 ink (H, W) to float32 in [0, 1], from the ground's grey level to the strongest strokes'."""
    dense = int(np.searchsorted(_counts(ink), 0.999 * ink.size))
    most = max(dense, (dense + int(ink.max())) // 2)
    if most - usual < FAINTEST:
        return np.zeros(ink.shape, np.float32)
    levels = (np.arange(256, dtype=np.float32) - usual) / (most - usual)
    return np.clip((levels - GRAIN) / (1 - 2 * GRAIN), 0, 1)[ink]
