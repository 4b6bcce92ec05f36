"""Benchmarks: training steps of both stages, and loading of embedded scenes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ragaf_exp.commands.benches.timing import medians, row
from ragaf_exp.config.stages import IMAGES


def training_step() -> list[dict[str, Any]]:
    """A training step of stage 2, and one of its region path alone, compared with one of stage 1 on the same batch."""
    steps, batch = stage_steps()
    first, last, regions = medians(steps)
    what = f"a training step at batch {batch}, embedded defaults"
    return [
        {"name": f"training_step/{IMAGES[0]}", "value": first, "unit": "ms", "what": what},
        row(f"training_step/{IMAGES[1]}", last, first, "ms", f"{what}; reference: stage 1's"),
        row("training_step/regions_only", regions, first, "ms", f"{what}; reference: stage 1's"),
    ]


def scenes() -> list[dict[str, Any]]:
    """Embedded scenes per second on one core, without and with sketch, regions and graph."""
    from ragaf_exp.assembly.assemble import preparer
    from ragaf_exp.config.build import build
    from ragaf_exp.config.compose import compose_config

    cfg = compose_config([])
    items, prepare = build(cfg.data, "data").split("train"), preparer(cfg)
    count = 100
    rendered, prepared = medians([
        lambda: [items[i] for i in range(count)], lambda: [prepare(items[i]) for i in range(count)]
    ])  # fmt: skip
    return [
        {"name": "data/scenes", "value": count / rendered * 1000, "unit": "items/s", "what": "64x64, one core"},
        {"name": "data/scenes_with_graph", "value": count / prepared * 1000, "unit": "items/s",
         "what": "with sketch, regions and graph"},
    ]  # fmt: skip


def stage_steps() -> tuple[list[Callable[[], object]], int]:
    """Training steps of stage 1, stage 2 and the region path of stage 2 on one fixed batch, and the batch size."""
    import tempfile
    from functools import partial

    from ragaf_exp.config.compose import compose_config
    from ragaf_exp.data.loader import collate
    from ragaf_exp.experiments.training import Training
    from ragaf_exp.runs.folder import RunFolder

    cfg = compose_config([f"runs={tempfile.mkdtemp()}", "data.train=256", "data.val=8", "data.test=8", "logger=none"])
    experiment = Training(cfg, RunFolder.create(cfg))
    first, last = experiment.trainers()
    batch = collate([experiment.train_examples[i] for i in range(cfg.stage.batch)]).to(experiment.compute.device)
    joint = last.plan.region_steps
    return [
        partial(first.step, 0, batch),
        partial(last.step, joint, batch),
        partial(last.step, 0, batch),
    ], cfg.stage.batch
