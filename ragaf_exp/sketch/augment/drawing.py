"""Augmentation by the differences between two people's drawings of one thing, and between two scans of a sheet."""

from __future__ import annotations

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import between
from ragaf_exp.sketch.augment import marks, strokes, warp


class Drawing:
    """Random distortions, gaps and marks; the strength for each sketch is uniform between 0 and the given maximum.

    Lengths are relative to the sketch's size, so that the same strengths suit every resolution.

    Args:
        affine: Largest rotation (radians), scale, shear and shift (of the side), 0 to 0.5.
        jitter: Largest smooth displacement along each axis, as a fraction of the shorter side, 0 to 0.1.
        width: Largest change of the stroke width, as a fraction of the shorter side, 0 to 0.1; no stroke vanishes.
        gaps: Largest share of the strokes' length that is erased in short pieces, 0 to 1.
        dropout: Probability that a connected piece of the drawing is removed, 0 to 1; the largest one stays.
        specks: Largest share of the paper covered by dots, 0 to 0.1.
        grain: Largest standard deviation of noise on the whole paper, 0 to 0.5.
    """

    def __init__(
        self, affine: limits.Shift = 0.03, jitter: limits.Jitter = 0.01, width: limits.Jitter = 0.015,
        gaps: limits.Share = 0.05, dropout: limits.Share = 0.03, specks: limits.Specks = 0.001,
        grain: limits.Grain = 0.03,
    ) -> None:  # fmt: skip
        most = {"affine": 0.5, "jitter": 0.1, "width": 0.1, "gaps": 1, "dropout": 1, "specks": 0.1, "grain": 0.5}
        given = {"affine": affine, "jitter": jitter, "width": width, "gaps": gaps, "dropout": dropout,
                 "specks": specks, "grain": grain}  # fmt: skip
        for name, value in given.items():
            between(f"augment.{name}", value, 0, most[name], 0)
        self.affine, self.jitter, self.width, self.gaps = affine, jitter, width, gaps
        self.dropout, self.specks, self.grain = dropout, specks, grain
        self.active = any(given.values())

    def __call__(self, sketch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augment a sketch (H,W) float32 in [0,1]; the input is not changed."""
        out = sketch.astype(np.float32)
        if self.affine or self.jitter:
            out = warp.move(out, self.affine, self.jitter, rng)
        if self.width:
            out = strokes.change_width(out, self.width * min(out.shape) * rng.uniform(-1, 1))
        if self.gaps:
            out = strokes.erase_pieces(out, self.gaps * rng.random(), rng)
        if self.dropout:
            out = strokes.drop(out, self.dropout, rng)
        if self.specks:
            out = marks.add_specks(out, self.specks * rng.random(), rng)
        if self.grain:
            out = marks.add_grain(out, self.grain * rng.random(), rng)
        return out
