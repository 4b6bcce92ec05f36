"""Pictures of a run: validation grids, the report's panels, attention maps, fusion over timesteps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.types import Example
from ragaf_exp.inference.pipeline import SampledImages
from ragaf_exp.models.text.tiny import TinyText
from ragaf_exp.viz.attention import attention_figure
from ragaf_exp.viz.grids import grid, png
from ragaf_exp.viz.regions import region_overlay

COLUMNS = ("sketch", "regions", "stage1", "stage2", "truth")


def save_png(path: Path, picture: np.ndarray, own: bool = False) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: of the file; a symbolic link there is replaced.
        picture: (H,W,3) uint8, or a sketch (H,W) in [0,1], which is drawn dark on white.
        own: the file belongs to a run folder, as in `files.write_bytes`.
    """
    if picture.ndim == 2:
        picture = np.rint(255 * (1 - np.clip(picture, 0, 1))).astype(np.uint8)
    write_bytes(path, png(picture), own)


def panels(example: Example, drawn: SampledImages, row: int, text: TinyText) -> dict[str, np.ndarray]:
    """One item's pictures by name: sketch, regions, stage1, stage2, attention; what does not apply is left out."""
    overlay = region_overlay(example.sketch, example.regions, example.graph)
    found = {"sketch": example.sketch, "regions": overlay}
    for name in ("stage1", "stage2"):
        images = getattr(drawn, name)
        if images is not None:
            found[name] = images[row]
    if drawn.region_text is not None:
        words, attention = by_word(example.item.caption, drawn.region_text[row], text)
        attention = attention[: example.regions.count]
        found["attention"] = attention_figure(words, attention, overlay, example.regions.labels)
    return found


def by_word(caption: str, attention: np.ndarray, text: TinyText) -> tuple[list[str], np.ndarray]:
    """The caption's words and the regions' attention to them (N,words): columns of a word's tokens (N,T) are summed."""
    words: list[str] = []
    columns: list[np.ndarray] = []
    end = -1
    for i, (start, stop) in enumerate(text.token_spans(caption)):
        if stop == 0:  # START belongs to no word
            continue
        if start == end and caption[start:stop].isalnum():
            words[-1] += caption[start:stop]
            columns[-1] = columns[-1] + attention[:, i]
        else:
            words.append(caption[start:stop])
            columns.append(attention[:, i])
        end = stop
    return words, np.stack(columns, 1) if columns else np.zeros((len(attention), 0), np.float32)


def validation_grid(rows: list[Example], drawn: SampledImages) -> np.ndarray:
    """One row per item: sketch, regions, stage 1, stage 2, truth."""
    columns = {
        "sketch": [e.sketch for e in rows],
        "regions": [region_overlay(e.sketch, e.regions, e.graph) for e in rows],
        **{name: x for name in ("stage1", "stage2") if (x := getattr(drawn, name)) is not None},
        "truth": [e.item.image for e in rows],
    }
    return grid(list(zip(*columns.values(), strict=True)), list(columns), [e.item.caption for e in rows])
