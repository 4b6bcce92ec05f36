"""Edge extraction from images, for comparison with a sketch.

A sketch that an extractor made (sketch=canny, xdog, pidinet, ...) is compared with the same extractor's output for the
image, tones included. No extractor reproduces a hand drawing: a drawing is thinned, and compared with the edges that a
colour Canny or PiDiNet detects in the image.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import cv2
import numpy as np

from eval.metrics.curves import Curve, curve_of, drawing_curve, stroke_curve, tolerance_px
from ragaf_exp.core.errors import UserError
from ragaf_exp.sketch.drawn import Drawn

FOR_DRAWINGS = ("canny", "pidinet")

# Hysteresis thresholds: contrast of a step edge in CIE76 units (2.3 is just noticeable). Paper grain, compression noise
# and shading stay below LOW; neighbouring colours of a picture are far above HIGH.
HIGH, LOW = 18.0, 10.0
_SCALE = 8.0  # cv2.Canny takes 16-bit gradients: with |a|, |b| < 128 and a 3x3 Sobel's gain of 4 they stay below 2**15


class EdgeReader(Protocol):
    """Turns sketches and images into curves that can be compared."""

    name: str  # recorded with the figures

    def strokes(self, sketch: np.ndarray) -> Curve:
        """The curve of a sketch (H,W) in [0, 1], 1 = stroke."""

    def edges(self, image: np.ndarray) -> Curve:
        """The edges of a picture (H,W,3) uint8."""


class ColourCanny:
    """For drawings: the strokes' centre lines or sides, and Canny edges of the image in CIELAB."""

    name = "canny_lab"

    def strokes(self, sketch: np.ndarray) -> Curve:
        return drawing_curve(sketch)

    def edges(self, image: np.ndarray) -> Curve:
        return edge_curve(image)


class Extracted:
    """Edges of an image by a sketch extractor.

    Args:
        extractor: One of `ragaf_exp.sketch`'s, a callable (image, drawing) -> sketch (H,W).
        toned: Whether the extractor made the sketch too, so that tones can be compared; else the sketch is a drawing.
    """

    def __init__(self, extractor: Any, toned: bool = True) -> None:
        self.extractor, self.toned = extractor, toned
        self.name = type(extractor).__name__.lower()

    def strokes(self, sketch: np.ndarray) -> Curve:
        return stroke_curve(sketch, toned=True) if self.toned else drawing_curve(sketch)

    def edges(self, image: np.ndarray) -> Curve:
        check_image(image)
        return stroke_curve(self.extractor(image, None), self.toned)


def reader_of(extractor: Any = None, drawings: str = "canny", weights: str = "", device: str = "auto") -> EdgeReader:
    """The edge reader for sketches of an extractor.

    Args:
        extractor: The extractor that made the sketches; None, or a paired-drawing source, for drawings.
        drawings: Edge detector of images whose sketch is a drawing: canny or pidinet.
        weights: PiDiNet's weights file; "" takes the hub's.
        device: PiDiNet's device: auto, cpu or cuda.

    Raises:
        UserError: For another name of `drawings`.
    """
    if drawings not in FOR_DRAWINGS:
        raise UserError(f"eval.edges={drawings}: must be one of {', '.join(FOR_DRAWINGS)}")
    if extractor is not None and not isinstance(extractor, Drawn):
        return Extracted(extractor)
    if drawings == "canny":
        return ColourCanny()
    from ragaf_exp.sketch.pidinet import PiDiNet  # needs PyTorch, which is slow to import

    return Extracted(PiDiNet(weights=weights, device=device), toned=False)


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless the image is (H,W,3) uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}: it must be uint8 (H, W, 3)")


def edge_curve(image: np.ndarray) -> Curve:
    """The edges of a picture (H,W,3) uint8 by Canny (1986) on CIELAB.

    Gaussian smoothing with half the tolerance as standard deviation, Sobel per channel, the channel with the strongest
    gradient at every pixel (so that a border between two colours of equal lightness is an edge), non-maximum
    suppression, and hysteresis between LOW and HIGH. Raises ValueError for another dtype or shape.
    """
    check_image(image)
    lab = cv2.cvtColor(np.multiply(image, 1 / 255, dtype=np.float32), cv2.COLOR_RGB2LAB)
    sigma = tolerance_px(image.shape) / 2.0
    lab = cv2.GaussianBlur(lab, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    dx, dy = _strongest(*(_sobel(lab, *order) for order in ((1, 0), (0, 1))))
    gain = _step_gain(sigma)
    return curve_of(cv2.Canny(_int16(dx), _int16(dy), LOW * gain, HIGH * gain, L2gradient=True) > 0)


def _sobel(lab: np.ndarray, x: int, y: int) -> np.ndarray:
    return cv2.Sobel(lab, cv2.CV_32F, x, y, ksize=3, scale=_SCALE, borderType=cv2.BORDER_REPLICATE)


def _strongest(dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (H,W) of the channel with the largest magnitude at each pixel, from (H,W,3)."""
    (x, *other_x), (y, *other_y) = cv2.split(dx), cv2.split(dy)
    best = cv2.magnitude(x, y)
    for next_x, next_y in zip(other_x, other_y, strict=True):
        power = cv2.magnitude(next_x, next_y)
        better = cv2.compare(power, best, cv2.CMP_GT)
        for target, source in ((x, next_x), (y, next_y), (best, power)):
            cv2.copyTo(source, better, target)
    return x, y


def _int16(values: np.ndarray) -> np.ndarray:
    """Round to int16 in one pass; NumPy would take two."""
    return cv2.addWeighted(values, 1, values, 0, 0, dtype=cv2.CV_16S)


def _step_gain(sigma: float) -> float:
    """Gradient magnitude next to a step edge of height 1, so that thresholds are contrasts at any smoothing."""
    left, right = (math.erf(reach / (sigma * math.sqrt(2.0))) / 2.0 for reach in (0.5, 1.5))
    return 4.0 * _SCALE * (left + right)
