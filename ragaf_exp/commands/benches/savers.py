"""What each option of config group `memory` saves: bytes and milliseconds of a stage-2 step, beside the plain one's.

Bytes are counted, not asked of a device, so that they hold on any: what autograd keeps for the backward pass, the
optimizer's moments, gradients that are there when the backward pass ends, and the averaged weights.
"""

from __future__ import annotations

import importlib.util
import tempfile
from typing import Any

import torch

from ragaf_exp.commands.benches.timing import medians, row

TURNS = 3
MEGA = 1e6
SAVERS = {  # overrides, and which of the counts they are about
    "bf16": (["memory.precision=bf16"], "activations"),
    "fp16": (["memory.precision=fp16"], "activations"),
    "checkpointing": (["memory.checkpointing=true"], "activations"),
    "adamw8bit": (["memory.optimizer=adamw8bit"], "moments"),
    "step_in_backward": (["memory.step_in_backward=true", "optim.clip=0"], "gradients"),
    "ema_off": (["memory.ema=off"], "averages"),
    "channels_last": (["memory.channels_last=true"], "activations"),
}  # fmt: skip


def savers() -> list[dict[str, Any]]:
    """Rows of MB and of ms for each saver."""
    names = [n for n in SAVERS if n != "adamw8bit" or importlib.util.find_spec("bitsandbytes")]
    plain, *others = [_Step(words) for words in ([], *(SAVERS[name][0] for name in names))]
    reference, *times = medians([step.run for step in (plain, *others)], TURNS)
    counts = plain.counts()
    found = []
    for name, step, ms in zip(names, others, times, strict=True):
        about = SAVERS[name][1]
        what = f"a step of stage 2, embedded defaults in float32: {about}"
        found.append(row(f"savers/{name}", step.counts()[about], counts[about], "MB", what))
        found.append(row(f"savers/{name}_time", ms, reference, "ms", "the whole step"))
    return found


class _Step:
    """A joint step of stage 2 with some options."""

    def __init__(self, words: list[str]):
        from ragaf_exp.config.compose import compose_config
        from ragaf_exp.config.schema import COARSE, REFINE
        from ragaf_exp.data.loader import collate
        from ragaf_exp.experiments.training import Training
        from ragaf_exp.runs.folder import RunFolder

        fixed = ["data.train=64", "data.val=8", "data.test=8", "logger=none", "memory.device=cpu"]
        precision = [] if any("precision" in word for word in words) else ["memory.precision=no"]
        cfg = compose_config([*fixed, *precision, *words, f"runs={tempfile.mkdtemp()}"])
        experiment = Training(cfg, RunFolder.create(cfg))
        self.trainer = experiment.trainer(REFINE, experiment.trainer(COARSE, None).bare)
        self.batch = collate([experiment.train_examples[i] for i in range(cfg.stage.batch)])

    def run(self) -> None:
        self.trainer.step(self.trainer.plan.region_steps, self.batch)

    def counts(self) -> dict[str, float]:
        """MB by kind, of one more step."""
        update = self.trainer.update
        kept: dict[int, int] = {}
        alive: list[torch.Tensor] = []
        weights = {p.untyped_storage().data_ptr() for p in self.trainer.bare.parameters()}
        found: dict[str, float] = {}
        backward, apply = update.backward, update.apply

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if (place := tensor.untyped_storage().data_ptr()) not in weights:
                kept[place] = tensor.untyped_storage().nbytes()
                alive.append(tensor)  # so that no other takes its place
            return tensor

        def before(loss: torch.Tensor) -> None:
            found["activations"] = sum(kept.values()) / MEGA
            backward(loss)

        def after() -> bool:
            gradients = [p.grad.nbytes for p in self.trainer.bare.parameters() if p.grad is not None]
            found["gradients"] = sum(gradients) / MEGA
            return apply()

        update.backward, update.apply = before, after
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.run()
        update.backward, update.apply = backward, apply
        found["moments"] = sum(v.nbytes for k, v in update.tensors().items() if "qmap" not in k) / MEGA
        ema = self.trainer.ema
        own = [] if ema.model is self.trainer.bare else [mean.nbytes for mean, _ in ema.pairs]
        return found | {"averages": sum(own) / MEGA}
