"""Configs and models of the tiny families in tiny_families.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from tiny_families import SAVED

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.types import Batch
from ragaf_exp.data.loader import collate
from ragaf_exp.runs.folder import RunFolder

CAPTIONS = ["a red circle left of a blue star", "a green moon"]
SHORT = ["stage.batch=2", "stage.refine.region_batch=2", "stage.coarse.steps=2", "stage.refine.steps=2",
         "stage.refine.region_steps=1", "data.train=4", "data.val=2", "data.test=2", "eval.test_items=2", "eval.batch=2",
         "eval.validation_items=2", "backbone.every=1", "text.max_tokens=20"]  # fmt: skip
FAMILIES = list(SAVED)
EXTRA = {"qwen_image": ["text.max_tokens=400"], "z_image": ["text.max_tokens=60"]}  # the templates spelled letter by letter


def overrides(tiny: list[str], family: str, folder: Path, runs: Path, *more: str) -> list[str]:
    """The tiny run with a family's folder, at 32x32."""
    mine = [word for word in tiny if not word.startswith(("backbone.", "text."))]
    given = [*SHORT, *EXTRA.get(family, []), f"backbone={family}", f"backbone.source={folder}", f"runs={runs}"]
    words: dict[str, str] = {}  # the last value of each key
    for word in [*mine, *given, *more]:
        words[word.partition("=")[0]] = word
    for option, key in {"text=tiny": "text.max_tokens", "hint=tokens": "hint.width"}.items():
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


def save_all(root: Path) -> dict[str, Path]:
    """The folder of each family."""
    return {family: save(root / family) for family, save in SAVED.items()}
