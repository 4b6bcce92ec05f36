"""Images of a run: validation grids and the panels of its report and samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ragaf_exp.config.stages import IMAGES
from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.types import Example
from ragaf_exp.inference.pipeline import SampledImages
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.tasks.base import Panel
from ragaf_exp.viz.attention import attention_figure
from ragaf_exp.viz.grids import grid, png
from ragaf_exp.viz.regions import regions_of

TRUTH = "truth"


def columns(shown: Sequence[Panel], further: Sequence[str] = ()) -> list[str]:
    """The names of a grid's columns in order: a task's panels, the samples of the stages, the true image, further ones."""
    return [*(panel.name for panel in shown), *IMAGES, TRUTH, *further]


def save_png(path: Path, picture: np.ndarray, own: bool = False) -> None:
    """Write an image atomically as PNG.

    Args:
        path: The file; a symbolic link is replaced.
        picture: (H,W,3) uint8 image, or (H,W) sketch in [0,1], which is drawn dark on white.
        own: Whether the file belongs to a run folder, as for `files.write_bytes`.
    """
    if picture.ndim == 2:
        picture = np.rint(255 * (1 - np.clip(picture, 0, 1))).astype(np.uint8)
    write_bytes(path, png(picture), own)


def panels(
    example: Example, sampled: SampledImages, row: int, text: TextEncoder, shown: Sequence[Panel]
) -> dict[str, np.ndarray]:
    """The images of one item.

    Args:
        example: The item, with sketch, regions and graph.
        sampled: The samples of its batch.
        row: The index of the item in the batch.
        text: The text encoder, which maps tokens to words.
        shown: The task's panels.

    Returns:
        Images by name: the task's panels, the samples of the stages that ran, attention.
    """
    images = {panel.name: panel.of(example) for panel in shown}
    images |= {name: of_batch[row] for name, of_batch in sampled.images.items()}
    if sampled.region_text is not None:
        words, attention = by_word(example.item.caption, sampled.region_text[row], text)
        attention, overlay = attention[: example.regions.count], regions_of(example)
        images["attention"] = attention_figure(words, attention, overlay, example.regions.labels)
    return images


def by_word(caption: str, attention: np.ndarray, text: TextEncoder) -> tuple[list[str], np.ndarray]:
    """Sum the attention to the tokens of each word.

    Args:
        caption: The caption.
        attention: (N,T) attention to its tokens.
        text: The text encoder, which gives the tokens' spans in the caption.

    Returns:
        The words, and (N,words) attention to them.
    """
    words: list[str] = []
    columns: list[np.ndarray] = []
    end = -1
    for i, (start, stop) in enumerate(text.token_spans(caption)):
        if stop == 0:  # the START token
            continue
        if start == end and caption[start:stop].isalnum():
            words[-1] += caption[start:stop]
            columns[-1] = columns[-1] + attention[:, i]
        else:
            words.append(caption[start:stop])
            columns.append(attention[:, i])
        end = stop
    return words, np.stack(columns, 1) if columns else np.zeros((len(attention), 0), np.float32)


def validation_grid(rows: list[Example], sampled: SampledImages, shown: Sequence[Panel]) -> np.ndarray:
    """A grid with one row per item: the task's panels, the samples of the stages, the true image.

    Args:
        rows: The items.
        sampled: Their samples.
        shown: The task's panels.
    """
    cells = {
        **{panel.name: [panel.of(e) for e in rows] for panel in shown},
        **sampled.images,
        TRUTH: [e.item.image for e in rows],
    }
    return grid(list(zip(*cells.values(), strict=True)), list(cells), [e.item.caption for e in rows])
