"""Counts the floating-point operations of each stage, without a device, data or weights.

    python -m ragaf_exp.plan.flops memory=PROFILE [overrides]

Counts matrix products and convolutions with torch.utils.flop_counter, a multiply-add as two operations. The counts are per
item: for a training step without recomputation, for a denoiser call, and for encoding the conditions, once per image.
Norms, softmaxes and copies are not counted. Example:

    python -m ragaf_exp.plan.flops memory=16gb hint=controlnet
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ragaf_exp.config.command_line import guarded
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.imports import stub_optional_imports

ROWS = ("training step", "denoiser call", "conditions")


def main() -> None:
    cfg = compose_config(sys.argv[1:])
    flops = count_flops(cfg)
    first, last = (flops[cfg.stage.run[i]] for i in (0, -1))
    print("GFLOP per item".ljust(18), *(stage.rjust(10) for stage in flops), "ratio".rjust(8))
    for row in ROWS:
        cells = [f"{counts[row] / 1e9:10.2f}" for counts in flops.values()]
        print(row.ljust(18), *cells, f"{last[row] / first[row]:8.3f}")


def count_flops(cfg: Any) -> dict[str, dict[str, float]]:
    """Operations per item, by trained stage and by row of ROWS."""
    with stub_optional_imports():
        from ragaf_exp.plan.dry_run import TrainingFixture
        from ragaf_exp.plan.fake_cuda import UnfusedAttentionCompute, meta_device
        from ragaf_exp.plan.predict import planned_config
        from ragaf_exp.plan.tracker import Tracker

    short, flops = planned_config(cfg), {}
    short.memory.checkpointing = False
    for stage in cfg.stage.run:
        with meta_device(), Tracker() as tracker:
            fixture = TrainingFixture(short, stage, UnfusedAttentionCompute("no"), tracker)
            flops[stage] = {row: _operations(call) / len(fixture.batch) for row, call in _calls(fixture).items()}
    return flops


def _calls(fixture: Any) -> dict[str, Callable[[], Any]]:
    import torch

    model, batch = fixture.trainer.bare, fixture.batch.smaller(fixture.trainer.plan.scale)
    with torch.no_grad():
        conditions, latent = model.condition(batch), torch.zeros(fixture.codec.latent_shape(batch))
    without_gradients = torch.no_grad()
    calls = (
        lambda: fixture.trainer.step(fixture.number, fixture.batch),
        without_gradients(lambda: model.denoise(latent, torch.zeros(len(batch)), conditions)),
        without_gradients(lambda: model.condition(batch)),
    )
    return dict(zip(ROWS, calls, strict=True))


def _operations(call: Callable[[], Any]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


if __name__ == "__main__":
    guarded(main)
