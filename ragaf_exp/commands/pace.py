"""Measures what training steps cost, so that a study's baseline can be given the same time as the full model.

    python -m ragaf_exp.commands.pace +experiment=ablation_quick [overrides]

Steps of the full model and of the baseline alternate in one process; the cost is processor time, on a GPU wall time.
Prints how many steps of stage 1 alone take as long as both stages together: alone_steps in conf/study. Example:

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
ITEMS = 256  # of the training split, enough for a batch


def main() -> None:
    words = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="ragaf_exp-pace-") as place:
        small = [f"data.train={ITEMS}", "data.val=8", "data.test=8", "logger=none", f"runs={place}", "study.share=false"]
        steps, sizes, counts = measured([[*words, f"member={name}", *small] for name in ("full", "baseline")])
    for name, seconds in steps.items():
        print(f"{name:22}{1000 * seconds:8.0f} ms a step   x {counts[name]:6}")
    full = sum(steps[name] * counts[name] for name in steps if name.startswith("full"))
    print(f"{'full, both stages':22}{full:8.0f} s, {sizes['full']:,} parameters; baseline: {sizes['baseline']:,} "
          f"({sizes['baseline'] / sizes['full']:.3f} times)")  # fmt: skip
    print(f"as long as that: study.alone_steps={round(full / steps['baseline, stage 1'])}")


def measured(members: list[list[str]]) -> tuple[dict[str, float], dict[str, int], dict[str, int]]:
    """Of full and baseline: seconds of each kind of step, parameters, and how many steps of each kind."""
    functions: dict[str, Callable[[], object]] = {}
    sizes: dict[str, int] = {}
    counts: dict[str, int] = {}
    for name, words in zip(("full", "baseline"), members, strict=True):
        of_member, sizes[name], of_counts = _steps(words)
        functions |= {f"{name}, {kind}": function for kind, function in of_member.items()}
        counts |= {f"{name}, {kind}": count for kind, count in of_counts.items()}
    return dict(zip(functions, _least(list(functions.values())), strict=True)), sizes, counts


def _steps(words: list[str]) -> tuple[dict[str, Callable[[], object]], int, dict[str, int]]:
    """One training step of every kind on a fixed batch; parameters of the last stage; how many of each a run takes."""
    from ragaf_exp.config.schema import COARSE, REFINE
    from ragaf_exp.data.loader import collate
    from ragaf_exp.experiments.training import Training
    from ragaf_exp.runs.folder import RunFolder

    cfg = compose_config(words)
    experiment = Training(cfg, RunFolder.create(cfg))
    pace, examples = cfg.stage, experiment.train_examples
    batch, regions = (collate([examples[i % len(examples)] for i in range(n)]).to(experiment.compute.device)
                      for n in (pace.batch, pace.refine.region_batch))  # fmt: skip
    coarse = experiment.trainer(COARSE, None)
    found, counts, last = {"stage 1": partial(coarse.step, 0, batch)}, {"stage 1": pace.coarse.steps}, coarse
    if REFINE in pace.run:
        last = experiment.trainer(REFINE, coarse.ema.model)
        alone = last.plan.region_steps
        found["stage 2"], counts["stage 2"] = partial(last.step, alone, batch), last.plan.steps - alone
        if alone:
            found["region path"], counts["region path"] = partial(last.step, 0, regions), alone
    return found, sum(p.numel() for p in last.bare.parameters()), counts


def _least(functions: list[Callable[[], object]]) -> list[float]:
    """The least seconds of each over some turns, after one that does not count: what else runs only adds."""
    import torch

    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(TURNS + 1):
        for function, kept in zip(functions, times, strict=True):
            began = clock()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                kept.append(clock() - began)
    return [min(kept) for kept in times]


if __name__ == "__main__":
    guarded(main)
