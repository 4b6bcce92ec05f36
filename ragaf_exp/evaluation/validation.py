"""The small, fast part of the evaluation that training's validation calls on its grid of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.edges import reader_of
from eval.items import numbers
from eval.registry import VALIDATION, shown
from eval.scoring import binding_values, bindings, pixel_values, sketch_values
from ragaf_exp.core.types import Example
from ragaf_exp.inference.pipeline import SampledImages


def validation_scores(examples: list[Example], drawn: SampledImages, extractor: Any) -> dict[str, float]:
    """Means over a few items of the last stage's images. extractor: who made the sketches."""
    images = list(drawn.final)
    values = sketch_values([e.sketch for e in examples], images, reader_of(extractor))
    values |= pixel_values(images, [e.item.image for e in examples])
    values |= binding_values([bindings(image, e.item) for image, e in zip(images, examples, strict=True)])
    found = {name: [v for value in values[name] for v in numbers(value)] for name in shown(VALIDATION) if name in values}
    return {name: float(np.mean(of_items)) for name, of_items in found.items() if of_items}
