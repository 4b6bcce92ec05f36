"""Panels and a grid of the first test items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.scoring import bindings
from ragaf_exp.core.files import write_json
from ragaf_exp.core.safe_files import make_folder
from ragaf_exp.core.types import Example
from ragaf_exp.inference.pipeline import SampledImages
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.tasks.base import Panel
from ragaf_exp.viz.grids import grid
from ragaf_exp.viz.panels import TRUTH, columns, panels, save_png


class TestPictures:
    """Saves the panels of the first `count` test items below samples/test, with an index and a grid.

    Args:
        folder: The run's samples folder.
        count: Number of items.
        text: Text encoder, for the attention panels.
        shown: The task's panels.
        rivals: The task's simple methods, Example -> image.
    """

    __test__ = False

    def __init__(
        self, folder: Path, count: int, text: TextEncoder, shown: Sequence[Panel],
        rivals: Mapping[str, Callable[[Example], np.ndarray]],
    ):  # fmt: skip
        self.folder, self.count, self.text, self.shown = folder / "test", count, text, shown
        self.rivals = rivals
        self.index: list[dict] = []
        self.panels: list[dict[str, np.ndarray]] = []

    def __call__(self, index: int, example: Example, sampled: SampledImages, row: int) -> None:
        if index >= self.count:
            return
        here = self.folder / f"{index:04d}"
        make_folder(here)
        final = sampled.final[row]
        pictures = panels(example, sampled, row, self.text, self.shown) | {TRUTH: example.item.image}
        pictures |= {name: rival(example) for name, rival in self.rivals.items()}
        for name, picture in pictures.items():
            save_png(here / f"{name}.png", picture, own=True)
        self.panels.append(pictures)
        names = [panel.name for panel in self.shown]
        self.index.append({"key": example.item.key, "caption": example.item.caption, "dir": here.name, "panels": names,
                           "rivals": list(self.rivals), "objects": _objects(example, final)})  # fmt: skip

    def write_index(self) -> None:
        """Write index.json and grid.png."""
        write_json(make_folder(self.folder) / "index.json", self.index, own=True)
        if self.panels:
            names = [name for name in columns(self.shown, list(self.rivals)) if name in self.panels[0]]
            cells = [[pictures[name] for name in names] for pictures in self.panels]
            save_png(self.folder / "grid.png", grid(cells, names, [entry["caption"] for entry in self.index]), own=True)


def _objects(example: Example, image: np.ndarray) -> list[dict]:
    item = example.item
    return [
        {"phrase": item.caption[slice(*b.object.span)], "wanted": b.object.colour, "found": b.detected_colour,
         "correct": bool(b.correct)}
        for b in bindings(image, item) or []
    ]  # fmt: skip
