"""Fidelity of an image to its sketch: boundary precision, recall, F1, Chamfer distance, MS-SSIM of soft edges.

Two thin curves are compared: the sketch, thinned to one pixel, and the edges of the image (`eval.edges`). A drawing's
wide strokes may also be compared by their two sides (`eval.metrics.curves`). Precision is the share of edge pixels with
a stroke within the tolerance, recall the share of stroke pixels with an edge within it.

Pixels are matched by distance transforms, not one to one as in BSDS. Both curves are thin, so a pixel rarely matches
more than one. A skeleton and a Canny detector digitise the same line with different numbers of pixels, which one-to-one
matching counts as errors: it scores the true images of the embedded scenes at 0.85, the transforms at 0.99
(docs/metrics.md). The cost of the transforms is bounded, and the Chamfer distance needs them anyway. The drawback is
that an edge doubled within the tolerance of one stroke is not penalised.

The tolerance is 0.75 % of the diagonal (Martin et al. 2004) but at least 1 px, the resolution of the pixel grid: below
that, a curve on the neighbouring pixel would count as missed. At 64x64, 0.75 % is 0.68 px, so the tolerance is 1 px.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from eval.edges import ColourCanny, EdgeReader
from eval.images import ahead
from eval.metrics.curves import STROKE_LEVEL, Curve, diagonal, tolerance_px
from eval.metrics.soft_edges import ms_ssim
from ragaf_exp.data.fit import resize_strokes

__all__ = ["STROKE_LEVEL", "Fidelity", "compare", "sketch_fidelity", "sketch_fidelity_set", "tolerance_px"]


@dataclass(frozen=True)
class Fidelity:
    """How well the edges of an image follow a sketch."""

    precision: float
    recall: float
    f1: float
    chamfer: float  # mean of both directions' mean distances, as a share of the diagonal; 0 is best
    ms_ssim: float  # of the soft edges, 0 to 1
    tolerance: float  # px

    def values(self) -> dict[str, float]:
        """The scores by the names of metrics.json."""
        return {"sketch_f1": self.f1, "sketch_precision": self.precision, "sketch_recall": self.recall,
                "chamfer": self.chamfer, "edge_ms_ssim": self.ms_ssim}  # fmt: skip


def compare(strokes: Curve, edges: Curve) -> Fidelity:
    """Fidelity of an image's edges to a sketch's strokes, as defined above.

    If the strokes have sides as well as centre lines, the one with the higher F1 counts. Two empty curves agree
    perfectly. If only one is empty, precision, recall and F1 are 0 and the Chamfer distance is the whole diagonal.
    Raises ValueError for curves of different size.
    """
    if strokes.mask.shape != edges.mask.shape:
        raise ValueError(f"sketch {strokes.mask.shape} and image {edges.mask.shape} differ in size: resize one of them")
    readings = [curve for curve in (strokes, strokes.sides) if curve is not None]
    matches = [_match(curve, edges) for curve in readings]
    best = max(range(len(matches)), key=lambda i: matches[i][2])
    alike = ms_ssim(readings[best].levels, edges.levels)
    return Fidelity(*matches[best], alike, tolerance_px(strokes.mask.shape))


def _match(strokes: Curve, edges: Curve) -> tuple[float, float, float, float]:
    """Precision, recall, F1 and Chamfer distance."""
    empty = not strokes.mask.any(), not edges.mask.any()
    if any(empty):
        agreement = float(all(empty))
        return agreement, agreement, agreement, 1.0 - agreement
    to_stroke, to_edge = strokes.distance[edges.mask], edges.distance[strokes.mask]
    # 1e-3 px: distances equal to the tolerance must count as within it despite rounding
    limit = tolerance_px(strokes.mask.shape) + 1e-3
    precision, recall = (float(np.mean(d <= limit)) for d in (to_stroke, to_edge))
    f1 = 2.0 * precision * recall / (precision + recall) if precision + recall else 0.0
    # in float64: a float32 sum depends on the array's memory alignment
    means = (float(np.mean(d, dtype=np.float64)) for d in (to_stroke, to_edge))
    return precision, recall, f1, sum(means) / (2.0 * diagonal(strokes.mask.shape))


def sketch_fidelity(sketch: np.ndarray, image: np.ndarray, reader: EdgeReader | None = None) -> Fidelity:
    """Fidelity of a picture to the sketch that it was generated from.

    Args:
        sketch: (H,W) in [0, 1], 1 = stroke.
        image: (H,W,3) uint8.
        reader: Edge detector; None is Canny on CIELAB, for drawings.
    """
    reader = reader or ColourCanny()
    return compare(reader.strokes(sketch), reader.edges(image))


def sketch_fidelity_set(
    sketches: Sequence[np.ndarray], images: Sequence[np.ndarray], reader: EdgeReader | None = None,
    done: Callable[[int], object] | None = None,
) -> tuple[list[Fidelity], list[Fidelity]]:  # fmt: skip
    """Fidelity of every image to its own sketch, and as chance level to another item's.

    Items half the set apart exchange their sketches, so that neighbours, which may be sketches of the same photo, are
    rarely paired. Of an odd number the last item takes the first one's sketch. A sketch of another size is resized to
    the image's.

    Args:
        sketches: (H,W) in [0, 1] each; read by threads, a few at a time, so a lazy sequence will do.
        images: (H,W,3) uint8 each, as many.
        reader: Edge detector; None is Canny on CIELAB, for drawings.
        done: Called with the number of images that were just finished.

    Returns:
        Fidelity of every image to its own sketch and to another item's. The latter is empty for a single item.

    Raises:
        ValueError: For a pair that can't be compared; the message contains the item's index.
    """
    if len(sketches) != len(images):
        raise ValueError(f"{len(sketches)} sketches for {len(images)} images")
    own: list[Fidelity | None] = [None] * len(images)
    chance = list(own)
    for results in _in_threads(partial(_pair, sketches, images, reader or ColourCanny()), _pairs(len(images))):
        for i, mine, others in results:
            own[i], chance[i] = mine, others
        if done is not None:
            done(len(results))
    return own, chance if len(images) > 1 else []


def _pairs(count: int) -> list[tuple[int, int]]:
    """Items that exchange sketches. (i, i) has no partner; in (i, 0) only the first item of the pair is scored."""
    half = count // 2
    pairs = [(i, i + half) for i in range(half)]
    return pairs + [(count - 1, 0)] * (count % 2)


def _pair(
    sketches: Sequence[np.ndarray], images: Sequence[np.ndarray], reader: EdgeReader, pair: tuple[int, int]
) -> list[tuple[int, Fidelity, Fidelity]]:
    """(item, fidelity to its own sketch, to its partner's) for the items of a pair that are to be scored."""
    drawings = {i: sketches[i] for i in pair}
    strokes = {i: _named(i, reader.strokes, drawings[i]) for i in pair}
    results = []
    for i, other in (pair, pair[::-1])[: 1 if pair[1] <= pair[0] else 2]:
        edges = _named(i, reader.edges, images[i])
        mine = _named(i, compare, strokes[i], edges)
        fits = strokes[other].mask.shape == edges.mask.shape
        borrowed = strokes[other] if fits else reader.strokes(resize_strokes(drawings[other], *edges.mask.shape))
        results.append((i, mine, compare(borrowed, edges)))
    return results


def _named(item: int, function: Callable, *values: object) -> object:
    try:
        return function(*values)
    except ValueError as error:
        raise ValueError(f"item {item}: {error}") from error


def _in_threads(function: Callable, jobs: list) -> Iterator:
    """Results in order. The first job runs alone, as an extractor may load its network in it."""
    if jobs:
        yield function(jobs[0])
        yield from ahead(function, jobs[1:])
