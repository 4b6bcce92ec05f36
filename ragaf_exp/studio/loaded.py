"""A run that is loaded for the studio: its networks, its drawings, and the facts that the page shows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.build import build
from ragaf_exp.config.packaged import FOLDER
from ragaf_exp.config.stages import chain, trained
from ragaf_exp.core.edits import GROWTH, STRENGTH
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.data.sources.palette import OBJECT_NAMES
from ragaf_exp.inference.load import load_run, make_pipeline
from ragaf_exp.inference.pipeline import Pipeline
from ragaf_exp.inference.recipes import Settings
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.runs.checkpoints import newest_checksums, newest_whole
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.sketch import Canny, DoG, Scharr, XDoG
from ragaf_exp.studio.drawing import Drawings
from ragaf_exp.studio.edit_kinds import REPAINT, EditKind, edit_kinds

WIDER = (2.0, 4.0, 6.0)  # times the run's gap: how wide an opening may be to be reported as a leak
WIDEST = 0.2  # share of the shorter side
SKETCHES: dict[str, Callable[..., np.ndarray]] = {  # the first is the usual choice
    "canny": Canny(), "xdog": XDoG(), "dog": DoG(), "scharr": Scharr(),
}  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A loaded run."""

    folder: RunFolder
    parts: Parts
    pipeline: Pipeline

    @classmethod
    def read(cls, path: Path) -> Loaded:
        """Load a run folder. Raises UserError as `sample` does."""
        folder, cfg = RunFolder.read(path, edited=True)
        return cls(folder, *load_run(folder, cfg))

    @property
    def cfg(self) -> DictConfig:
        """The config of the run."""
        return self.parts.cfg

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its images."""
        return self.cfg.data.size, self.cfg.data.size

    @property
    def text(self) -> TextEncoder:
        """The text encoder of its last stage."""
        return self.pipeline.last.text

    @cached_property
    def name(self) -> dict[str, Any]:
        """Name and checksum of the run, for recipes."""
        path = self.folder.path
        checksums = newest_checksums(self.folder.checkpoints)
        name = path.name if path.parent == FOLDER.resolve() else f"{path.parent.name}/{path.name}"
        return {"name": name, "checksum": json_digest(checksums, 12)}

    @cached_property
    def edits(self) -> list[EditKind]:
        """The kinds of edits of images that it can make; RePaint where its task makes images from drawings."""
        return edit_kinds(self.parts.task) or [REPAINT]

    @property
    def takes_image(self) -> bool:
        """Whether its task edits an image, rather than making one from a drawing."""
        return self.edits[0].trained

    def drawings(self) -> Drawings:
        """Make the extractor and editor of regions."""
        prepare = self.parts.prepare
        gap = self.cfg.regions.get("gap", 0.0)
        wider = [min(WIDEST, factor * gap) for factor in WIDER if gap]
        extractors = [build(cast(DictConfig, OmegaConf.merge(self.cfg.regions, {"gap": one})), "regions") for one in wider]
        return Drawings(self.size, prepare.regions, extractors, prepare.graph, SKETCHES)

    def with_settings(self, settings: Settings) -> tuple[Parts, Pipeline]:
        """Copy the run's parts and pipeline with other settings of sampling; the networks are shared.

        Raises:
            UserError: A setting is not possible for this run.
        """
        parts = copy.copy(self.parts)
        parts.cfg = cast(DictConfig, OmegaConf.merge(self.cfg, {"seed": settings.seed, "sampler": settings.overrides()}))
        if settings.strength is not None:
            parts.cfg.stage[trained(parts.cfg)[-1].name].strength = settings.strength
        parts.sampler = build(parts.cfg.sampler, "sampler", diffusion=parts.diffusion)
        return parts, make_pipeline(parts.cfg, parts, self.pipeline.models, self.pipeline.compute)

    def described(self) -> dict[str, Any]:
        """Describe the run for the page."""
        height, width = self.size
        return {
            "run": {**self.name, "trained_steps": self._trained()}, "width": width, "height": height, "task": self._task(),
            "stages": [stage.spec.number for stage in self.pipeline.stages],
            "region_edits": self.pipeline.has_regions, "defaults": self._defaults(),
            "schedulers": sorted(self.parts.diffusion.schedulers), "words": self.text.words(),
            "colours": [name for name in OBJECT_NAMES if self.text.known_part(name)[0]],
            "extractors": list(SKETCHES), "lacks": self._lacks(),
        }  # fmt: skip

    def _task(self) -> dict[str, Any]:
        edits = [kind.described() for kind in self.edits]
        jobs = ["edit"] if self.takes_image else ["sketch", "edit"]
        title = type(self.parts.task).__name__
        return {"name": "".join(f" {c.lower()}" if c.isupper() else c for c in title).strip().capitalize(),
                "jobs": jobs, "edit": edits[0], "edits": edits}  # fmt: skip

    def _defaults(self) -> dict[str, Any]:
        sampler = self.parts.sampler
        own = {"steps": sampler.steps, "guidance": sampler.guidance, "scheduler": sampler.scheduler}
        return {**own, "strength": trained(self.cfg)[-1].settings["strength"], "redo_strength": STRENGTH, "grow": GROWTH,
                "resamplings": 5, "context": 0.5, "feather": 0.0}  # fmt: skip

    def _trained(self) -> dict[str, int]:
        paths = {s.name: newest_whole(self.folder.checkpoints, s.name) for s in chain(self.cfg)}
        return {stage: int(path.name) for stage, path in paths.items() if path is not None}

    def _lacks(self) -> list[str]:
        """Describe what this run can't do, one line each."""
        lacks = []
        if not self.pipeline.has_regions:
            lacks.append("This run has no stage with regions, so that prompts of regions have no effect; train one with "
                         "stage=both")  # fmt: skip
        if not self.folder.state.get("trained"):
            lacks.append("This run is not trained to the end")
        return lacks
