"""What stages cost in counted operations, at any size, without a device, data or weights.

    python -m ragaf_exp.plan.flops memory=16gb hint=controlnet [overrides]

Counts the floating-point operations of matrix products and convolutions (a multiplication and an addition are two), as
torch.utils.flop_counter knows them, per item: of a training step without recomputation, of a call of the denoiser, and of
encoding the conditions, once per image. Norms, softmaxes and copies, which take time too, count nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ragaf_exp.config.command_line import guarded
from ragaf_exp.config.compose import composed
from ragaf_exp.core.imports import quick_imports

ROWS = ("training step", "denoiser call", "conditions")


def main() -> None:
    cfg = composed(sys.argv[1:])
    found = counted(cfg)
    first, last = (found[cfg.stage.run[place]] for place in (0, -1))
    print("GFLOP an item".ljust(18), *(stage.rjust(10) for stage in found), "ratio".rjust(8))
    for row in ROWS:
        cells = [f"{counts[row] / 1e9:10.2f}" for counts in found.values()]
        print(row.ljust(18), *cells, f"{last[row] / first[row]:8.3f}")


def counted(cfg: Any) -> dict[str, dict[str, float]]:
    """Operations an item, by stage of the config's run and by row of ROWS."""
    with quick_imports():
        from ragaf_exp.plan.dry_run import Stand
        from ragaf_exp.plan.fake_cuda import InTheOpen, nowhere
        from ragaf_exp.plan.predict import planned_config
        from ragaf_exp.plan.tracker import Tracker

    short, found = planned_config(cfg), {}
    short.memory.checkpointing = False
    for stage in cfg.stage.run:
        with nowhere(), Tracker() as tracker:
            stand = Stand(short, stage, InTheOpen("no"), tracker)
            found[stage] = {row: _operations(call) / len(stand.batch) for row, call in _calls(stand).items()}
    return found


def _calls(stand: Any) -> dict[str, Callable[[], Any]]:
    import torch

    from ragaf_exp.models.codecs.base import latent_shape

    model, batch = stand.trainer.bare, stand.batch.smaller(stand.trainer.plan.scale)
    with torch.no_grad():
        conditions, latent = model.condition(batch), torch.zeros(latent_shape(batch, stand.codec))
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
