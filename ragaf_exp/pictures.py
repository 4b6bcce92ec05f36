"""Pictures of a run: validation grids, the report's panels, attention maps, fusion over timesteps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from eval.scoring import bindings
from ragaf_exp.figures import attention_figure, grid, png
from ragaf_exp.files import write_bytes, write_json
from ragaf_exp.generate import Drawn
from ragaf_exp.models.conditioning import RegionState
from ragaf_exp.models.model import Model
from ragaf_exp.models.text import TinyText
from ragaf_exp.regions.overlay import region_overlay
from ragaf_exp.safe_files import make_folder
from ragaf_exp.types import Example

COLUMNS = ("sketch", "regions", "stage1", "stage2", "truth")
FUSION_POINTS = 21  # timesteps at which the fusion curve is read


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


def panels(example: Example, drawn: Drawn, row: int, text: TinyText) -> dict[str, np.ndarray]:
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


class TestPictures:
    """Keeps the panels of the first `count` test items under samples/test, with an index, and a grid of them."""

    __test__ = False

    def __init__(self, folder: Path, count: int, text: TinyText):
        self.folder, self.count, self.text = folder / "test", count, text
        self.index: list[dict] = []
        self.panels: list[dict[str, np.ndarray]] = []

    def __call__(self, place: int, example: Example, drawn: Drawn, row: int) -> None:
        if place >= self.count:
            return
        here = self.folder / f"{place:04d}"
        make_folder(here)
        final = drawn.final[row]
        found = panels(example, drawn, row, self.text) | {"truth": example.item.image}
        for name, picture in found.items():
            save_png(here / f"{name}.png", picture, own=True)
        self.panels.append(found)
        self.index.append({"key": example.item.key, "caption": example.item.caption, "dir": here.name,
                           "objects": _objects(example, final)})  # fmt: skip

    def write_index(self) -> None:
        write_json(make_folder(self.folder) / "index.json", self.index, own=True)
        if self.panels:
            names = [name for name in COLUMNS if name in self.panels[0]]
            cells = [[found[name] for name in names] for found in self.panels]
            save_png(self.folder / "grid.png", grid(cells, names, [entry["caption"] for entry in self.index]), own=True)


def _objects(example: Example, image: np.ndarray) -> list[dict]:
    item = example.item
    return [
        {"phrase": item.caption[slice(*b.object.span)], "wanted": b.object.colour, "found": b.found_colour,
         "correct": bool(b.correct)}
        for b in bindings(image, item) or []
    ]  # fmt: skip


def validation_grid(rows: list[Example], drawn: Drawn) -> np.ndarray:
    """One row per item: sketch, regions, stage 1, stage 2, truth."""
    columns = {
        "sketch": [e.sketch for e in rows],
        "regions": [region_overlay(e.sketch, e.regions, e.graph) for e in rows],
        **{name: x for name in ("stage1", "stage2") if (x := getattr(drawn, name)) is not None},
        "truth": [e.item.image for e in rows],
    }
    return grid(list(zip(*columns.values(), strict=True)), list(columns), [e.item.caption for e in rows])


@torch.no_grad()
def fusion_curve(model: Model, regions: RegionState) -> dict[str, list[float]]:
    """Mean and spread over regions of the fusion weights, at timesteps from 0 to the last."""
    curve: dict[str, list[float]] = {k: [] for k in ("timesteps", "sketch", "text", "sketch_std", "text_std")}
    for t in torch.linspace(0, model.timesteps - 1, FUSION_POINTS):
        times = torch.full((len(regions.region_mask),), float(t) / model.timesteps, device=regions.structure.device)
        _, weights = model.ragaf.fuse(regions, times)  # (B,N,2)
        sketch, text = weights[regions.region_mask].float().unbind(-1)
        curve["timesteps"].append(round(float(t)))
        for name, values in (("sketch", sketch), ("text", text)):
            curve[name].append(round(float(values.mean()), 5))
            curve[f"{name}_std"].append(round(float(values.std(unbiased=False)), 5))
    return curve
