"""Region edits of examples as tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ragaf_exp.core.edits import RegionEdit, RegionEdits
from ragaf_exp.core.types import EditTensors, Example, KeptImages
from ragaf_exp.regions.redo import redo_area

NO_EDIT, NO_EDITS = RegionEdit(), RegionEdits(())


def edit_tensors(examples: Sequence[Example], count: int) -> EditTensors | None:
    """Pad the edits of a batch's examples; None where no example has any.

    Args:
        examples: The batch's examples.
        count: Number of regions N that edits are padded to; an example with fewer has no edits of the others.

    Raises:
        ValueError: Only some of the examples keep an image, or their strengths differ.
    """
    if all(example.edits is None for example in examples):
        return None
    edits = [example.edits or NO_EDITS for example in examples]
    prompts = [[edit.prompt for edit in one.regions[:count]] for one in edits]
    prompts = [row + [""] * (count - len(row)) for row in prompts]
    columns = ["importance"], ["outline"], ["start", "end"]
    importance, outline, period = (_columns(edits, names, count) for names in columns)
    importance, outline = (None if x is None else x[..., 0] for x in (importance, outline))
    return EditTensors(prompts, importance, outline, period, _keep(examples, edits))


def _columns(edits: Sequence[RegionEdits], names: Sequence[str], count: int) -> torch.Tensor | None:
    """Numbers of each region (B,N,len(names)); None where all are as without edits."""
    default = torch.tensor([getattr(NO_EDIT, name) for name in names])
    values = default.repeat(len(edits), count, 1)
    for row, one in zip(values, edits, strict=True):
        for region, edit in zip(row, one.regions[:count], strict=False):
            region[:] = torch.tensor([getattr(edit, name) for name in names])
    return values if (values != default).any() else None


def _keep(examples: Sequence[Example], edits: Sequence[RegionEdits]) -> KeptImages | None:
    images = [one.keep for one in edits if one.keep is not None]
    if not images:
        return None
    strengths = {one.strength for one in edits}
    if len(images) < len(edits) or len(strengths) > 1:
        raise ValueError("the items of a batch must all keep an image, at the same strength, or none of them")
    image = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2)).float() / 127.5 - 1
    areas = [redo_area(example.regions.labels, one.redo, one.locked(), one.grow)
             for example, one in zip(examples, edits, strict=True)]  # fmt: skip
    return KeptImages(image, torch.from_numpy(np.stack(areas))[:, None], strengths.pop())
