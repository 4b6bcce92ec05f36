"""Measures the cost of training steps, so that a study's baseline can be given the same compute as the full model.

    python -m ragaf_exp.commands.pace +experiment=ablation_quick [overrides]

Steps of the full model and of the baseline alternate in one process. The cost is CPU time, or wall time on a GPU. Prints
the number of steps of stage 1 that cost as much as all stages together: alone_steps in conf/study. Example:

    python -m ragaf_exp.commands.pace +experiment=ablation_quick stage.batch=8
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

from ragaf_exp.config.command_line import guarded
from ragaf_exp.config.compose import compose_config

TURNS = 6
ITEMS = 256  # of the training split, at least a batch


def main() -> None:
    overrides = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="ragaf_exp-pace-") as folder:
        small = [f"data.train={ITEMS}", "data.val=8", "data.test=8", "logger=none", f"runs={folder}", "study.share=false"]
        steps, sizes, counts = measure([[*overrides, f"member={name}", *small] for name in ("full", "baseline")])
    for name, seconds in steps.items():
        print(f"{name:22}{1000 * seconds:8.0f} ms per step x {counts[name]:6}")
    full = sum(steps[name] * counts[name] for name in steps if name.startswith("full"))
    print(f"{'full, all stages':22}{full:8.0f} s, {sizes['full']:,} parameters; baseline: {sizes['baseline']:,} "
          f"({sizes['baseline'] / sizes['full']:.3f} times)")  # fmt: skip
    print(f"same cost: study.alone_steps={round(full / steps['baseline, stage 1'])}")


def measure(members: list[list[str]]) -> tuple[dict[str, float], dict[str, int], dict[str, int]]:
    """(seconds by kind of step, parameters by member, steps by kind in a run). members: overrides of full and baseline."""
    functions: dict[str, Callable[[], object]] = {}
    sizes: dict[str, int] = {}
    counts: dict[str, int] = {}
    for name, overrides in zip(("full", "baseline"), members, strict=True):
        of_member, sizes[name], of_counts = _steps(overrides)
        functions |= {f"{name}, {kind}": function for kind, function in of_member.items()}
        counts |= {f"{name}, {kind}": count for kind, count in of_counts.items()}
    return dict(zip(functions, _minimum_times(list(functions.values())), strict=True)), sizes, counts


def _steps(overrides: list[str]) -> tuple[dict[str, Callable[[], object]], int, dict[str, int]]:
    """(one training step of every kind on a fixed batch, parameters of the last stage, steps of each kind in a run)."""
    from ragaf_exp.config.stages import trained
    from ragaf_exp.data.loader import collate
    from ragaf_exp.experiments.training import Training
    from ragaf_exp.runs.folder import RunFolder

    cfg = compose_config(overrides)
    experiment = Training(cfg, RunFolder.create(cfg))
    examples, steps, counts = experiment.train_examples, {}, {}
    for stage, trainer in zip(trained(cfg), experiment.trainers(), strict=True):
        batch, regions = (collate([examples[i % len(examples)] for i in range(n)]).to(experiment.compute.device)
                          for n in (cfg.stage.batch, stage.settings["region_batch"]))  # fmt: skip
        title, region_steps = stage.title.lower(), trainer.plan.region_steps
        steps[title], counts[title] = partial(trainer.step, region_steps, batch), trainer.plan.steps - region_steps
        if region_steps:
            steps[f"{title}, region path"] = partial(trainer.step, 0, regions)
            counts[f"{title}, region path"] = region_steps
    return steps, sum(p.numel() for p in trainer.bare.parameters()), counts


def _minimum_times(functions: list[Callable[[], object]]) -> list[float]:
    """The minimum seconds of each function over TURNS rounds after a warm-up: other load can only add time."""
    import torch

    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(TURNS + 1):
        for function, seconds in zip(functions, times, strict=True):
            began = clock()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds.append(clock() - began)
    return [min(seconds) for seconds in times]


if __name__ == "__main__":
    guarded(main)
