"""Random masks of holes as LaMa and MAT train and evaluate with; pure functions of (seed, key, size)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.randomness import derive
from ragaf_exp.data.masks import strokes

WIDTHS = {"thin": 20.0, "medium": 100.0, "thick": 250.0}  # largest stroke width at 512 pixels: LaMa's evaluation
LENGTHS = {"thin": 400.0, "medium": 300.0, "thick": 450.0}  # largest segment length at 512 pixels
BOX = {"thin": (15.0, 75.0), "medium": (30.0, 150.0), "thick": (75.0, 300.0)}  # sides of boxes at 512 pixels
MOST = {"thin": 10, "medium": 5, "thick": 4}  # strokes, boxes or silhouettes
TRIES = 100  # masks sampled for an area range, before the closest one is taken
BINS = 10
Painter = Callable[[np.random.Generator, np.ndarray, str], None]


def _irregular(rng: np.random.Generator, mask: np.ndarray, width: str) -> None:
    strokes.irregular(rng, mask, WIDTHS[width], LENGTHS[width], MOST[width])


def _boxes(rng: np.random.Generator, mask: np.ndarray, width: str) -> None:
    strokes.boxes(rng, mask, *BOX[width], min(MOST[width], 4))


def _shapes(rng: np.random.Generator, mask: np.ndarray, width: str) -> None:
    strokes.silhouettes(rng, mask, {"thin": 1, "medium": 2, "thick": 4}[width])


def _lama(rng: np.random.Generator, mask: np.ndarray, width: str) -> None:
    """Irregular strokes or boxes, 1:1, as LaMa trains with."""
    (_irregular if rng.random() < 0.5 else _boxes)(rng, mask, width)


def _mixed(rng: np.random.Generator, mask: np.ndarray, width: str) -> None:
    (_irregular, _boxes, _shapes)[int(rng.integers(3))](rng, mask, width)


def _mat_small(rng: np.random.Generator, mask: np.ndarray, width: str) -> None:
    strokes.rectangles(rng, mask, 3, 0.5)
    strokes.rectangles(rng, mask, 2, 1.0)
    strokes.brush(rng, mask, 4)


def _mat_large(rng: np.random.Generator, mask: np.ndarray, width: str) -> None:
    strokes.rectangles(rng, mask, 5, 0.5)
    strokes.rectangles(rng, mask, 3, 1.0)
    strokes.brush(rng, mask, 9)


KINDS: dict[str, Painter] = {
    "strokes": _irregular, "boxes": _boxes, "shapes": _shapes, "lama": _lama, "mixed": _mixed,
    "mat_small": _mat_small, "mat_large": _mat_large,
}  # fmt: skip


class Masks:
    """Generates masks.

    Args:
        kind: strokes, boxes or shapes (silhouettes of objects); lama (strokes or boxes), mixed (any of the three);
            mat_small, mat_large.
        width: thin, medium or thick; MAT's have their own.
        area: Smallest and largest share of the image that the hole covers.
        seed: Seed of all masks.

    Raises:
        UserError: The kind or width is unknown, or the area is no range.
    """

    def __init__(
        self, kind: str = "mixed", width: str = "medium", area: limits.Area = (0.0, 0.5),
        seed: int = 0,
    ) -> None:  # fmt: skip
        if kind not in KINDS:
            raise UserError(f"masks={kind}: must be one of {', '.join(KINDS)}")
        if width not in WIDTHS:
            raise UserError(f"mask_width={width}: must be one of {', '.join(WIDTHS)}")
        low, high = area
        if not 0 <= low < high <= 1:
            raise UserError(f"mask_area={list(area)}: must be two shares of the image, the smaller first; take [0.0,0.5]")
        self.kind, self.width, self.area, self.seed = kind, width, (low, high), seed

    def __call__(self, key: str, height: int, width: int) -> np.ndarray:
        """Generate the mask (height, width) bool, True = hole, of an item; never empty.

        If no mask sampled lies in the area range, the one closest to it is returned: a small image may have none.
        """
        rng = np.random.default_rng(derive(self.seed, "mask", self.kind, self.width, key))
        best, least = np.zeros((height, width), bool), np.inf
        for _ in range(TRIES):
            mask = np.zeros((height, width), np.uint8)
            KINDS[self.kind](rng, mask, self.width)
            excess = self._excess(float(mask.mean()))
            if excess < least:
                best, least = mask.astype(bool), excess
            if least == 0:
                break
        return best

    def _excess(self, share: float) -> float:
        """How far a share lies outside the area range; 0 within it, infinite for an empty mask."""
        low, high = self.area
        return np.inf if share == 0 else max(low - share, share - high, 0.0)


def area_bin(mask: np.ndarray) -> int:
    """Return the bin of a mask's area, from 0 (up to 10 % of the image) to 9 (above 90 %)."""
    return min(BINS - 1, max(0, int(np.ceil(mask.mean() * BINS - 1e-9)) - 1))


def bin_name(number: int) -> str:
    """Name an area bin, as "10-20 %"."""
    return f"{number * 10}-{number * 10 + 10} %"
