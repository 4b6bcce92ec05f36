"""Scores of images painted after colour hints. Each function: Scoring -> values."""

from __future__ import annotations

import numpy as np

from eval.metrics.colour import delta_e_2000_map
from eval.scoring import Scoring, Values
from ragaf_exp.core.types import Example

RIGHT = 8.0  # CIEDE2000 difference from the truth up to which a hint is right


def hint_metrics(s: Scoring) -> Values:
    """Colour difference at the right hints, and how often wrong ones are followed against the truth."""
    rows = [_judged(image, e) for image, e in zip(s.images, s.examples, strict=True)]
    return {"delta_e_hints": [row[0] for row in rows], "wrong_followed": [row[1] for row in rows]}


def _judged(image: np.ndarray, example: Example) -> tuple[float | None, float | None]:
    """The mean difference at right hints, and the share of wrong hints' pixels that are nearer to them than to the truth.

    None where there is no such hint.
    """
    hinted, hints, truth = example.conditions["hinted"] > 0, example.conditions["hints"], example.item.image
    if not hinted.any():
        return None, None
    wanted, real, painted = hints[hinted], truth[hinted], image[hinted]
    right = delta_e_2000_map(wanted, real) <= RIGHT
    to_hint = delta_e_2000_map(painted, wanted)
    wrong = ~right
    followed = to_hint[wrong] < delta_e_2000_map(painted[wrong], real[wrong]) if wrong.any() else None
    return (
        float(to_hint[right].mean()) if right.any() else None,
        None if followed is None else float(followed.mean()),
    )
