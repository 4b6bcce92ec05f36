"""The components of a run, built from its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from omegaconf import DictConfig

from ragaf_exp.compute.out_of_memory import Chunks
from ragaf_exp.config.build import build
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.randomness import derive
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.assign import Assigned
from ragaf_exp.data.conditioned import Conditioned
from ragaf_exp.data.loader import Augmented, Examples, Preparer
from ragaf_exp.data.recaptioned import Recaptioned
from ragaf_exp.data.variants import Varied, pictures
from ragaf_exp.diffusion.base import Process
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.tasks.base import Task


@dataclass
class Parts:
    """The components that all stages share."""

    cfg: DictConfig
    prepare: Preparer
    diffusion: Process
    sampler: Sampler
    codec: Codec
    augment: Any  # (sketch, generator) -> sketch, for the training split
    tokenizer: Any = None
    chunks: Chunks = field(default_factory=Chunks)  # number of items that are sampled or validated together
    unit: int = 0  # pixels that must divide image sides; 0 = not known yet

    @cached_property
    def task(self) -> Task:
        """The task, which names the conditions, losses, metrics and panels."""
        return build(self.cfg.task, "task", process=self.diffusion)

    def request(self, example: Example, inputs: Mapping[str, np.ndarray]) -> Example:
        """The example of a sampling request with its conditions. inputs: images for the further columns of the task."""
        example = replace(example, item=self.task.request_item(example.item, inputs))
        rng = np.random.default_rng(derive(self.cfg.seed, "conditions", example.item.key))
        return replace(example, conditions=self.task.make_conditions(example, rng))

    @cached_property
    def source(self) -> Any:
        """The data source, built on first use, so that a finished run can be sampled without its data."""
        source = build(self.cfg.data, "data")
        if self.unit and hasattr(source, "set_unit"):
            source.set_unit(self.unit)
        return source

    def set_unit(self, unit: int) -> None:
        """Set the pixels that must divide image sides, for a data source that resizes images to several sizes."""
        self.unit = unit
        if "source" in vars(self) and hasattr(self.source, "set_unit"):
            self.source.set_unit(unit)

    def examples(self, split: str) -> Examples:
        """Examples of train, val or test, cached in memory unless worker processes prepare them."""
        examples = self._varied(split)
        if split == "train" and getattr(self.source, "samples_captions", False):
            examples = Recaptioned(examples, self.cfg.seed)
        if split == "train" and self.task.assign > 0:
            examples = Assigned(examples, self.task.assign, self.cfg.seed)
        return examples

    def _varied(self, split: str) -> Examples:
        """Examples of a split; the training split includes mirrored and cropped variants."""
        cache_mb = 0 if self.cfg.stage.workers else self.cfg.stage.cache_mb
        return self.conditioned(self._prepared(split, self.source.split(split), cache_mb))

    def conditioned(self, examples: Examples) -> Examples:
        """Examples with the task's conditions, if it has any beyond caption and sketch."""
        return Conditioned(examples, self.task.make_conditions, self.cfg.seed) if self.task.maps else examples

    def _prepared(self, split: str, items: Sequence[Item], cache_mb: float) -> Examples:
        task, seed = self.task, self.cfg.seed
        if split == "train" and (task.mirror > 0 or task.crops):
            plain, mirrored = pictures(items, task.crops, task.mirror > 0, seed)
            share_mb = cache_mb / (len(plain) + len(mirrored))
            kinds = ([self._examples(split, some, share_mb) for some in kind] for kind in (plain, mirrored))
            return Varied(*kinds, task.mirror, seed)
        return self._examples(split, items, cache_mb)

    def check_splits(self) -> None:
        """Raise UserError before training if a split is empty or its first item cannot be prepared."""
        for split in ("train", "val", "test"):
            if not len(items := self.source.split(split)):
                raise UserError(f"data: no items in the {split} split; {self._more_of(split)}")
            first = self.conditioned(Examples(items, self.prepare))[0]
            if self.task.maps and (absent := self.task.maps.keys() - first.conditions.keys()):
                raise UserError(f"data: an item of the {split} split has no {', '.join(sorted(absent))}, which this task "
                                "needs; take a data source that has it, or another task=")  # fmt: skip

    def _more_of(self, split: str) -> str:
        """Advice on how to fill an empty split, with config keys of this data source."""
        if hasattr(self.source, "advice"):
            return self.source.advice()
        keys = [f"data.{key}" for key in (split, f"{split}_share") if key in self.cfg.data]
        return f"raise {' or '.join(keys)}" if keys else "give more images"

    def _examples(self, split: str, items: Sequence[Item], cache_mb: float) -> Examples:
        if split == "train" and self.augment.active:
            return Augmented(items, self.prepare, cache_mb, self.augment, self.cfg.seed)
        return Examples(items, self.prepare, cache_mb)
