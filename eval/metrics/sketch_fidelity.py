"""Does a generated image keep its sketch? Boundary precision, recall, F1, Chamfer distance, MS-SSIM of soft edges.

Two thin curves are compared: the sketch, thinned to one pixel, and the edges of the image (see `eval.edges` for who
finds them). A drawing's wide strokes may also be read as their two sides (see `eval.metrics.curves`). Precision is
the share of edge pixels with a stroke within the tolerance, recall the share of stroke pixels with an edge within it.

The matching goes by distance transforms, not one to one as in BSDS: both curves are thin already, so a pixel can
hardly claim more than its due, while one line that a skeleton and a Canny digitise has different counts of pixels, and
one-to-one matching calls that a fault: it gives the true images of the embedded scenes 0.85 where the transforms give
0.99 (docs/metrics.md). The transforms' cost is bounded, and the Chamfer distance needs them anyway. The price: an edge
doubled within the tolerance of one stroke is not punished.

The tolerance is 0.75 % of the diagonal (Martin et al. 2004) but never below 1 px, the resolution of the pixel grid:
under it a curve drawn on the neighbouring pixel counts as missed. At 64 x 64, 0.75 % is 0.68 px, so 1 px holds.
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
    tolerance: float  # px, the one used

    def values(self) -> dict[str, float]:
        """The scores by the names of metrics.json."""
        return {"sketch_f1": self.f1, "sketch_precision": self.precision, "sketch_recall": self.recall,
                "chamfer": self.chamfer, "edge_ms_ssim": self.ms_ssim}  # fmt: skip


def compare(strokes: Curve, edges: Curve) -> Fidelity:
    """Fidelity of an image's edges to a sketch's strokes, as the module's text defines it.

    Where the strokes have sides beside their centre lines, the reading with the higher F1 counts. Two empty curves
    agree perfectly. Where only one is empty nothing matches: precision, recall and F1 are 0 and the Chamfer distance is
    the whole diagonal. Raises ValueError for curves of different size.
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
        check_residual_shapes = float(all(empty))
        return check_residual_shapes, check_residual_shapes, check_residual_shapes, 1.0 - check_residual_shapes
    to_stroke, to_edge = strokes.distance[edges.mask], edges.distance[strokes.mask]
    # 1e-3 px keeps distances that equal the tolerance on its side, whatever the rounding
    limit = tolerance_px(strokes.mask.shape) + 1e-3
    precision, recall = (float(np.mean(d <= limit)) for d in (to_stroke, to_edge))
    f1 = 2.0 * precision * recall / (precision + recall) if precision + recall else 0.0
    # in float64: a float32 sum depends on where the array happens to lie in memory
    means = (float(np.mean(d, dtype=np.float64)) for d in (to_stroke, to_edge))
    return precision, recall, f1, sum(means) / (2.0 * diagonal(strokes.mask.shape))


def sketch_fidelity(sketch: np.ndarray, image: np.ndarray, reader: EdgeReader | None = None) -> Fidelity:
    """Fidelity of a picture (H,W,3) uint8 to the sketch (H,W) in [0, 1] it was made from.

    reader: who finds the edges; None = Canny on CIELAB, for drawings.
    """
    reader = reader or ColourCanny()
    return compare(reader.strokes(sketch), reader.edges(image))


def sketch_fidelity_set(
    sketches: Sequence[np.ndarray], images: Sequence[np.ndarray], reader: EdgeReader | None = None,
    done: Callable[[int], object] | None = None,
) -> tuple[list[Fidelity], list[Fidelity]]:  # fmt: skip
    """Fidelity of every image to its own sketch, and to another item's: chance level.

    Items half the set apart lend each other their sketch, so that sketches of one photo, which are neighbours where
    there are several, rarely meet; of an odd number the last borrows the first's. A single item has no other's
    sketch, and its chance level is an empty list. Another's sketch of another size is brought to the image's.

    sketches, images: any sequences, read by threads, a few items at a time. done: called with the count of images that
    were just finished. Raises ValueError, naming the item by its place, for what can't be compared.
    """
    if len(sketches) != len(images):
        raise ValueError(f"{len(sketches)} sketches for {len(images)} images")
    own: list[Fidelity | None] = [None] * len(images)
    chance = list(own)
    for found in _in_threads(partial(_pair, sketches, images, reader or ColourCanny()), _pairs(len(images))):
        for i, mine, others in found:
            own[i], chance[i] = mine, others
        if done is not None:
            done(len(found))
    return own, chance if len(images) > 1 else []


def _pairs(count: int) -> list[tuple[int, int]]:
    """Who lends a sketch to whom; (i, i) has no partner, and in (i, 0) the first item, done already, only lends."""
    half = count // 2
    pairs = [(i, i + half) for i in range(half)]
    return pairs + [(count - 1, 0)] * (count % 2)


def _pair(
    sketches: Sequence[np.ndarray], images: Sequence[np.ndarray], reader: EdgeReader, pair: tuple[int, int]
) -> list[tuple[int, Fidelity, Fidelity]]:
    """(item, fidelity to its own sketch, to its partner's) of those of a pair that are to be judged."""
    drawings = {i: sketches[i] for i in pair}
    strokes = {i: _named(i, reader.strokes, drawings[i]) for i in pair}
    found = []
    for i, other in (pair, pair[::-1])[: 1 if pair[1] <= pair[0] else 2]:
        edges = _named(i, reader.edges, images[i])
        mine = _named(i, compare, strokes[i], edges)
        fits = strokes[other].mask.shape == edges.mask.shape
        lent = strokes[other] if fits else reader.strokes(resize_strokes(drawings[other], *edges.mask.shape))
        found.append((i, mine, compare(lent, edges)))
    return found


def _named(item: int, function: Callable, *values: object) -> object:
    try:
        return function(*values)
    except ValueError as error:
        raise ValueError(f"item {item}: {error}") from error


def _in_threads(function: Callable, jobs: list) -> Iterator:
    """Results in order. The first job runs alone: an extractor may load its network there."""
    if jobs:
        yield function(jobs[0])
        yield from ahead(function, jobs[1:])
