"""Eight examples, each of which shows one thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import skimage.data

from ragaf_exp.core.edits import RegionEdit
from ragaf_exp.data.uploads import data_url, png
from ragaf_exp.inference.recipes import Settings, SketchRecipe
from ragaf_exp.regions.points import nearest_region
from ragaf_exp.studio.drawing import Drawings
from ragaf_exp.studio.shapes import arc, closed, line, polygon, shaky, star
from ragaf_exp.studio.strokes import Stroke, rasterise

SIDE = 512  # pixels of an example's drawing


@dataclass(frozen=True)
class Example:
    """An example: a drawing or a picture, and the words of its regions."""

    id: str
    title: str
    teaches: str
    prompts: dict[tuple[float, float], str]  # by a point in the region
    caption: str = ""
    strokes: Sequence[Stroke] = ()
    picture: Callable[[], np.ndarray] | None = None  # (H,W,3) uint8, in place of strokes
    extract: str = ""  # how the drawing is extracted from the picture; "" = it is a drawing
    seed: int = 0

    def source(self) -> np.ndarray:
        """(H,W,3) uint8: its picture, or its strokes."""
        return rasterise(self.strokes, SIDE) if self.picture is None else self.picture()

    def recipe(self, drawings: Drawings) -> SketchRecipe:
        """Make its recipe for a run."""
        sketch = np.rint(255 * drawings.read(png(self.source()), self.extract)).astype(np.uint8)
        regions = drawings.extract(sketch.astype(np.float32) / 255)
        edits = [RegionEdit()] * regions.count
        for point, prompt in self.prompts.items():
            if (index := nearest_region(regions.labels, *point)) >= 0:
                edits[index] = replace(edits[index], prompt=prompt)
        return SketchRecipe(sketch, regions.labels, self.caption, tuple(edits), Settings(self.seed),
                            strokes=list(self.strokes) or None)  # fmt: skip

    def described(self) -> dict[str, Any]:
        """Describe it for the page."""
        photo = None if self.picture is None else data_url(png(self.picture()))
        regions = [{"at": list(point), "prompt": prompt, "importance": 1, "outline": 1, "locked": False}
                   for point, prompt in self.prompts.items()]  # fmt: skip
        return {"id": self.id, "title": self.title, "teaches": self.teaches, "extract": self.extract or None,
                "photo": photo, "caption": self.caption, "strokes": list(self.strokes), "regions": regions,
                "seed": self.seed}  # fmt: skip


def coins() -> np.ndarray:
    """A part of scikit-image's photo of coins, (256,256,3) uint8."""
    part = skimage.data.coins()[20:148, 40:168]
    return np.repeat(cv2.resize(part, (256, 256), interpolation=cv2.INTER_CUBIC)[..., None], 3, axis=2)


def paper() -> np.ndarray:
    """A drawing as photographed: grey pencil on yellowish paper, darker towards one corner, (384,384,3) uint8."""
    drawing = rasterise([shaky(polygon(0.32, 0.52, 0.2, 4, 0.125), 0.002, 1), shaky(arc(0.7, 0.5, 0.17), 0.002, 2)], 384)
    y, x = np.mgrid[:384, :384] / 384
    light = (1 - 0.35 * (x + y) / 2)[..., None] * np.array([250, 243, 222])
    ink = 1 - 0.75 * (1 - drawing / 255.0)
    return np.clip(light * ink, 0, 255).astype(np.uint8)


def _grid() -> list[tuple[Stroke, tuple[float, float], str]]:
    """Nine shapes in rows, each with a point in it and its colour."""
    colours = ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "red"]
    listed = []
    for i, colour in enumerate(colours):
        x, y = 0.2 + 0.3 * (i % 3), 0.2 + 0.3 * (i // 3)
        shape = (arc(x, y, 0.1), polygon(x, y, 0.12, 4, 0.125), star(x, y, 0.13))[i % 3]
        listed.append((shape, (x, y), colour))
    return listed


def _house() -> list[Stroke]:
    """A house with a door, and the sun."""
    wall = closed([(0.25, 0.5), (0.7, 0.5), (0.7, 0.88), (0.25, 0.88)])
    roof = closed([(0.2, 0.5), (0.475, 0.22), (0.75, 0.5)])
    door = line([(0.42, 0.88), (0.42, 0.65), (0.55, 0.65), (0.55, 0.88)])
    return [shaky(stroke, 0.004, i) for i, stroke in enumerate((wall, roof, door, arc(0.84, 0.17, 0.09)))]


@cache
def examples() -> tuple[Example, ...]:
    """The examples, in the order of the page; the first is the one that it opens with."""
    many = _grid()
    return (
        Example("two-shapes", "Two shapes", "Each region reads its own words, and no others.",
                {(0.29, 0.5): "red", (0.71, 0.5): "blue"}, "a mint background",
                [arc(0.29, 0.5, 0.17), star(0.71, 0.5, 0.2)]),
        Example("same-twice", "The same shape twice", "Words stay with their region, even where shapes are alike.",
                {(0.28, 0.5): "green", (0.72, 0.5): "purple"}, "a white background",
                [arc(0.28, 0.5, 0.18), arc(0.72, 0.5, 0.18)]),
        Example("nested", "One in another", "Regions may lie within each other.",
                {(0.5, 0.22): "yellow", (0.5, 0.34): "blue", (0.5, 0.5): "red"}, "a grey background",
                [polygon(0.5, 0.5, 0.46, 4, 0.125), arc(0.5, 0.5, 0.22), polygon(0.5, 0.52, 0.12, 3)]),
        Example("many", "Nine at once", "There is no limit on the number of words, only on that of regions.",
                {at: colour for _, at, colour in many}, "a white background", [shape for shape, _, _ in many]),
        Example("house", "A child's drawing", "Lines need not be straight or clean.",
                {(0.475, 0.4): "red", (0.32, 0.7): "yellow", (0.485, 0.76): "blue", (0.84, 0.17): "orange"},
                "a white background", _house()),
        Example("gaps", "Open outlines",
                "Small gaps are closed (left). A wide one leaks, and a mark shows where (right): close it with the pen.",
                {(0.28, 0.5): "cyan", (0.72, 0.5): "pink"}, "a beige background",
                [arc(0.28, 0.5, 0.17, 0.02, 1.0), arc(0.72, 0.5, 0.17, 0.3, 1.17)]),
        Example("photo", "A photo", "The drawing can be extracted from a photo.", {}, "a red circle on a white background",
                picture=coins, extract="canny"),
        Example("paper", "A drawing on paper", "Photograph a drawing: shadows and the colour of the paper are removed.",
                {(0.32, 0.52): "orange", (0.7, 0.5): "green"}, "a lavender background", picture=paper),
    )  # fmt: skip


@dataclass
class Results:
    """The results of the examples by a run, as they are computed.

    Args:
        listed: The examples.
    """

    listed: Sequence[Example]
    images: dict[str, bytes] = field(default_factory=dict)  # id -> PNG
    failed: set[str] = field(default_factory=set)

    def missing(self) -> Example | None:
        """The next example without a result."""
        return next((one for one in self.listed if one.id not in self.images and one.id not in self.failed), None)

    def described(self) -> dict[str, Any]:
        """Describe the examples for the page."""
        rows = []
        for one in self.listed:
            content = self.images.get(one.id)
            rows.append({**one.described(), "image": None if content is None else data_url(content)})
        return {"examples": rows}
