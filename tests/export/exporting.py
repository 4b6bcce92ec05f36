"""Exports in this process, and short runs on a small folder in Stable Diffusion's layout."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.config.compose import compose_config
from ragaf_exp.experiments.experiment import run
from ragaf_exp.export.kinds import Options
from ragaf_exp.export.trained import open_run
from ragaf_exp.export.write import export

SHORT = ["stage.coarse.steps=2", "stage.refine.steps=2", "stage.refine.region_steps=1", "stage.checkpoint_every=9",
         "stage.batch=2", "stage.refine.region_batch=2", "stage.validate_every=9", "data.train=4", "data.val=2",
         "data.test=2", "eval.test_items=2", "eval.validation_items=2", "eval.batch=2", "eval.pictures=1", "ragaf.width=32",
         "ragaf.heads=2", "ragaf.layers=1"]  # fmt: skip
HINTS = {
    "controlnet": ["hint=controlnet", "hint.channels=[4,8,8,8]"],
    "t2i": ["hint=t2i", "hint.layers=1"],
    "lite": ["hint=lite", "hint.width=16", "hint.zero_init=true"],
}


def train(tiny: list[str], sd: Path, runs: Path, tune: str, hint: str, *more: str) -> Path:
    """Train both stages for a few steps; returns the run folder."""
    base = [w for w in tiny if not w.startswith(("backbone.", "text.", "hint."))]
    base = [w for w in base if w.partition("=")[0] not in {s.partition("=")[0] for s in SHORT}]
    return run(compose_config([
        *base, *SHORT, *HINTS[hint], "backbone=sd15", f"backbone.source={sd}", "text=clip", "codec=kl", "diffusion=folder",
        f"memory.tune={tune}", "memory.lora_rank=4", f"runs={runs}", f"name={hint}_{tune}", *more,
    ])).path  # fmt: skip


def write(run: Path, out: Path, *kinds: str, half: bool = False, copies: bool = False, stage: str = "") -> Path:
    """Export a run."""
    export(open_run(str(run), {}), out, kinds, Options(half, stage, copies), "")
    return out
