"""Configs and models of the tiny families in tiny_families.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from tiny_families import SAVED
from torch import Tensor

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.types import Batch
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.training import Training
from ragaf_exp.runs.folder import RunFolder

CAPTIONS = ["a red circle left of a blue star", "a green moon"]
SHORT = ["stage.batch=2", "stage.refine.region_batch=2", "stage.coarse.steps=2", "stage.refine.steps=2",
         "stage.refine.region_steps=1", "data.train=4", "data.val=2", "data.test=2", "eval.test_items=2", "eval.batch=2",
         "eval.validation_items=2", "eval.pictures=1", "backbone.every=1", "text.max_tokens=20"]  # fmt: skip
FAMILIES = list(SAVED)
CONTROLLED = [family for family in FAMILIES if family != "flux2"]  # diffusers has ControlNets of these
EXTRA = {"qwen_image": ["text.max_tokens=400"], "z_image": ["text.max_tokens=60"],
         "flux2": ["text.max_tokens=60"]}  # the templates spelled letter by letter  # fmt: skip


def overrides(tiny: list[str], family: str, folder: Path, runs: Path, *more: str) -> list[str]:
    """The tiny run with a family's folder, at 32x32."""
    mine = [word for word in tiny if not word.startswith(("backbone.", "text."))]
    given = [*SHORT, *EXTRA.get(family, []), f"backbone={family}", f"backbone.source={folder}", f"runs={runs}"]
    words: dict[str, str] = {}  # the last value of each key
    for word in [*mine, *given, *more]:
        words[word.partition("=")[0]] = word
    dropped = {"text=tiny": "text.max_tokens", "hint=tokens": "hint.width", "hint=controlnet": "hint.width"}
    for option, key in dropped.items():
        if option in more:
            del words[key]
    return list(words.values())


def config(tiny: list[str], family: str, folder: Path, runs: Path, *more: str) -> Any:
    """The checked config of `overrides`."""
    return compose_config(overrides(tiny, family, folder, runs, *more))


def built(cfg: Any, stage: str, tmp_path: Path) -> tuple[Parts, Any, Batch]:
    """Parts and model of a stage, and a batch of two items whose captions are CAPTIONS."""
    parts = assemble(cfg, RunFolder(tmp_path))
    batch = collate([parts.examples("train")[i] for i in range(2)])
    return parts, make_model(parts, stage).eval(), Batch(**{**vars(batch), "captions": CAPTIONS})


def pipeline_of(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def velocity_at(pipeline: Any, t: Tensor, call: Callable[[], object]) -> Tensor:
    """The velocity that a call of a pipeline computes at timestep t, from the step that its scheduler then takes."""
    scheduler, recorded = pipeline.scheduler, []

    class Stop(Exception):
        pass

    def step(velocity, *args, **kwargs):
        recorded.append(velocity)
        raise Stop

    def times(num_inference_steps=None, device=None, sigmas=None, mu=None, timesteps=None):
        scheduler.timesteps, scheduler.sigmas = t[None], torch.stack([t / 1000, t * 0])

    scheduler.step, scheduler.set_timesteps = step, times
    try:
        call()
    except Stop:
        pass
    finally:
        del vars(scheduler)["step"], vars(scheduler)["set_timesteps"]
    return recorded[0]


def training_of(cfg: Any) -> tuple[Training, Batch]:
    """A training, and a batch of its first two items."""
    training = Training(cfg, RunFolder.create(cfg))
    return training, collate([training.train_examples[i] for i in range(2)])


def trained_twice(trainer: Any, batch: Batch) -> tuple[dict[str, Tensor], set[str]]:
    """Take the last two steps of a plan: the parameters before, and the names of those that changed."""
    before = {name: p.detach().clone() for name, p in trainer.bare.named_parameters()}
    for step in (trainer.plan.steps - 2, trainer.plan.steps - 1):  # outputs start at zero: inputs move at the second
        trainer.step(step, batch)
    return before, {name for name, p in trainer.bare.named_parameters() if not torch.equal(p, before[name])}


def save_all(root: Path) -> dict[str, Path]:
    """The folder of each family."""
    return {family: save(root / family) for family, save in SAVED.items()}
