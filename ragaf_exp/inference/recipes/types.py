"""The data types of recipes, schema 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ragaf_exp.core.edits import GROWTH, STRENGTH, RegionEdit

SCHEMA = 1


@dataclass(frozen=True)
class Settings:
    """Settings of sampling; None = as the run's config says."""

    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    strength: float | None = None  # share of the noise schedule that the last stage runs

    def overrides(self) -> dict[str, Any]:
        """Return those of the config group `sampler` that are set."""
        values = {"steps": self.steps, "guidance": self.guidance, "scheduler": self.scheduler}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class SketchRecipe:
    """An image made from a drawing, its regions and a caption."""

    sketch: np.ndarray  # (H,W) uint8, 255 = stroke
    labels: np.ndarray  # (H,W) int16: region index, -1 = no region
    caption: str = ""
    regions: tuple[RegionEdit, ...] = ()  # by the index in `labels`; may be shorter than the number of regions
    settings: Settings = Settings()
    keep: np.ndarray | None = None  # (H,W,3) uint8: an image, of which all but the regions `redo` stays
    redo: frozenset[int] = frozenset()
    redo_strength: float = STRENGTH  # with keep: share of the noise schedule
    grow: float = GROWTH  # with keep: share of the shorter side by which the area of `redo` grows
    strokes: list[dict[str, Any]] | None = None  # how the drawing was made, for the page only

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.sketch.shape[0], self.sketch.shape[1]


@dataclass(frozen=True)
class ImageRecipe:
    """An image edited by a task that takes one: inpainting, removal, white balance."""

    image: bytes  # of a picture file
    mask: bytes | None = None  # of a picture file of the same size, white = painted again; None = the whole image
    caption: str = ""
    sketch: bytes | None = None  # of a picture file: a drawing of the whole
    object: bytes | None = None  # of a picture file: what is inserted
    task: str = ""  # in a run of several
    settings: Settings = Settings()
    resamplings: int | None = None  # of RePaint, for a run that was not trained for the task
    context: float = 0.5  # margin around the hole, as a share of its longer side
    feather: float = 0.0  # pixels


Recipe: TypeAlias = SketchRecipe | ImageRecipe
