"""Counts the floating-point operations of each stage, without a device, data or weights.

    python -m ragaf_exp.plan.flops memory=PROFILE [overrides]

Counts matrix products and convolutions (a multiplication and an addition are two), as torch.utils.flop_counter does, per
item: of a training step without recomputation, of a denoiser call, and of encoding the conditions, once per image. Norms,
softmaxes and copies are not counted. Example:

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
    found = counted(cfg)
    first, last = (found[cfg.stage.run[place]] for place in (0, -1))
    print("GFLOP an item".ljust(18), *(stage.rjust(10) for stage in found), "ratio".rjust(8))
    for row in ROWS:
        cells = [f"{counts[row] / 1e9:10.2f}" for counts in found.values()]
        print(row.ljust(18), *cells, f"{last[row] / first[row]:8.3f}")


def counted(cfg: Any) -> dict[str, dict[str, float]]:
    """Operations an item, by stage of the config's run and by row of ROWS."""
    with stub_optional_imports():
        from ragaf_exp.plan.dry_run import TrainingFixture
        from ragaf_exp.plan.fake_cuda import UnfusedAttentionCompute, meta_device
        from ragaf_exp.plan.predict import planned_config
        from ragaf_exp.plan.tracker import Tracker

    short, found = planned_config(cfg), {}
    short.memory.checkpointing = False
    for stage in cfg.stage.run:
        with meta_device(), Tracker() as tracker:
            stand = TrainingFixture(short, stage, UnfusedAttentionCompute("no"), tracker)
            found[stage] = {row: _operations(call) / len(stand.batch) for row, call in _calls(stand).items()}
    return found


def _calls(stand: Any) -> dict[str, Callable[[], Any]]:
    import torch

    model, batch = stand.trainer.bare, stand.batch.smaller(stand.trainer.plan.scale)
    with torch.no_grad():
        conditions, latent = model.condition(batch), torch.zeros(stand.codec.latent_shape(batch))
    without_gradients = torch.no_grad()
    calls = (
        lambda: stand.trainer.step(stand.number, stand.batch),
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
