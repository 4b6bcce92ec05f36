"""Benchmark: bytes and milliseconds of a stage-2 step for each option of config group `memory`, compared with defaults.

Bytes are counted from tensors, so that they hold on any device: activations saved for the backward pass, the optimizer's
moments, gradients at the end of the backward pass, and the EMA weights.
"""

from __future__ import annotations

import importlib.util
import tempfile
from typing import Any

import torch

from ragaf_exp.commands.benches.timing import medians, row

TURNS = 3
MEGA = 1e6
SAVERS = {  # overrides, and the count that they reduce
    "bf16": (["memory.precision=bf16"], "activations"),
    "fp16": (["memory.precision=fp16"], "activations"),
    "checkpointing": (["memory.checkpointing=true"], "activations"),
    "adamw8bit": (["memory.optimizer=adamw8bit"], "moments"),
    "step_in_backward": (["memory.step_in_backward=true", "optim.clip=0"], "gradients"),
    "ema_off": (["memory.ema=off"], "averages"),
    "channels_last": (["memory.channels_last=true"], "activations"),
}  # fmt: skip


def savers() -> list[dict[str, Any]]:
    """Rows in MB and in ms for each saver."""
    names = [n for n in SAVERS if n != "adamw8bit" or importlib.util.find_spec("bitsandbytes")]
    plain, *others = [_Step(overrides) for overrides in ([], *(SAVERS[name][0] for name in names))]
    reference, *times = medians([step.run for step in (plain, *others)], TURNS)
    counts = plain.counts()
    rows = []
    for name, step, ms in zip(names, others, times, strict=True):
        kind = SAVERS[name][1]
        what = f"a step of stage 2, embedded defaults in float32: {kind}"
        rows.append(row(f"savers/{name}", step.counts()[kind], counts[kind], "MB", what))
        rows.append(row(f"savers/{name}_time", ms, reference, "ms", "the whole step"))
    return rows


class _Step:
    """A training step of stage 2, of all its paths, with some overrides."""

    def __init__(self, overrides: list[str]):
        from ragaf_exp.config.compose import compose_config
        from ragaf_exp.data.loader import collate
        from ragaf_exp.experiments.training import Training
        from ragaf_exp.runs.folder import RunFolder

        fixed = ["data.train=64", "data.val=8", "data.test=8", "logger=none", "memory.device=cpu"]
        precision = [] if any("precision" in override for override in overrides) else ["memory.precision=no"]
        cfg = compose_config([*fixed, *precision, *overrides, f"runs={tempfile.mkdtemp()}"])
        experiment = Training(cfg, RunFolder.create(cfg))
        *_, self.trainer = experiment.trainers()
        self.batch = collate([experiment.train_examples[i] for i in range(cfg.stage.batch)])

    def run(self) -> None:
        self.trainer.step(self.trainer.plan.region_steps, self.batch)

    def counts(self) -> dict[str, float]:
        """MB by kind, counted in one more step."""
        update = self.trainer.update
        saved: dict[int, int] = {}
        alive: list[torch.Tensor] = []
        weights = {p.untyped_storage().data_ptr() for p in self.trainer.bare.parameters()}
        megabytes: dict[str, float] = {}
        backward, apply = update.backward, update.apply

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if (address := tensor.untyped_storage().data_ptr()) not in weights:
                saved[address] = tensor.untyped_storage().nbytes()
                alive.append(tensor)  # so that its address is not reused
            return tensor

        def before(loss: torch.Tensor) -> None:
            megabytes["activations"] = sum(saved.values()) / MEGA
            backward(loss)

        def after() -> bool:
            gradients = [p.grad.nbytes for p in self.trainer.bare.parameters() if p.grad is not None]
            megabytes["gradients"] = sum(gradients) / MEGA
            return apply()

        update.backward, update.apply = before, after
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.run()
        update.backward, update.apply = backward, apply
        megabytes["moments"] = sum(v.nbytes for k, v in update.tensors().items() if "qmap" not in k) / MEGA
        ema = self.trainer.ema
        averages = [] if ema.model is self.trainer.bare else [mean.nbytes for mean, _ in ema.pairs]
        return megabytes | {"averages": sum(averages) / MEGA}
