"""From the files of a sampling request to an example, prepared like an item of the run's data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.fit import fit_drawing
from ragaf_exp.data.images import read_drawing, read_image
from ragaf_exp.inference.recipes.apply import strokes_of
from ragaf_exp.inference.requests import Request

SKETCH = "sketch"  # the column whose files are drawings
NO_INPUTS: Mapping[str, np.ndarray] = {}


def read_inputs(request: Request, polarity: str) -> dict[str, np.ndarray]:
    """Read the columns of a request: its sketch (H,W) in [0,1], numbers (n,), all others (H,W,3) uint8.

    Raises UserError for a file that cannot be read. polarity: of the sketch, as read_drawing takes it.
    """
    inputs = {name: read_image(path) for name, path in request.files.items()} | number_arrays(request)
    if request.recipe is not None:
        return {SKETCH: strokes_of(request.recipe), **inputs}
    return inputs if request.sketch is None else {SKETCH: read_drawing(request.sketch, polarity), **inputs}


def number_arrays(request: Request) -> dict[str, np.ndarray]:
    """The columns of numbers of a request, (n,) each."""
    return {name: np.array(values) for name, values in request.numbers.items()}


def as_example(
    drawing: np.ndarray | None, prompt: str, parts: Parts, size: tuple[int, int],
    inputs: Mapping[str, np.ndarray] = NO_INPUTS,
) -> Example:  # fmt: skip
    """Prepare a drawing and a prompt like an item of the run's data, with a black image.

    Args:
        drawing: (H,W) float in [0,1], of any size; None where the task does without.
        prompt: The prompt.
        parts: The components of the run.
        size: Height and width of the image in pixels.
        inputs: Pictures of the columns of the run's task.

    Returns:
        The example.
    """
    drawing = parts.task.request_drawing(inputs) if drawing is None else drawing
    sketch = np.zeros(size, np.float32) if drawing is None else fit_drawing(drawing, size)
    regions = parts.prepare.regions(sketch)
    # the key seeds the noise: the same sketch, prompt and seed give the same image
    item = Item("sample", np.zeros((*size, 3), np.uint8), prompt, drawing=sketch)
    absent = frozenset() if drawing is not None else frozenset({SKETCH})
    example = Example(item, sketch, regions, parts.prepare.graph(regions), absent=absent)
    return parts.request(example, {name: picture for name, picture in inputs.items() if name != SKETCH})
