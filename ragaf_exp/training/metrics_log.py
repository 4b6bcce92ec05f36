"""Writes the metrics of training to metrics.jsonl, the loggers and the status of the run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from ragaf_exp.config.schema import Optim
from ragaf_exp.core.errors import Diverged
from ragaf_exp.distributed import launch
from ragaf_exp.runs import checkpoints
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.oom_retry import held
from ragaf_exp.training.schedule import StageSchedule
from ragaf_exp.training.update import Update


class MetricsLogger:
    """Logs one stage. If several processes train together, only the main one writes.

    Args:
        plan: Steps and learning rates of the stage.
        folder: The run folder.
        optim: Config group `optim`.
        update: The weight update, for the state of its loss scaling.
        device: The device whose peak memory is logged.
        on_log: Called with (stage, step, metrics).
    """

    def __init__(
        self, plan: StageSchedule, folder: RunFolder, optim: Optim, update: Update, device: torch.device,
        on_log: Callable[[str, int, dict[str, float]], None],
    ):  # fmt: skip
        self.plan, self.folder, self.optim, self.update, self.device = plan, folder, optim, update, device
        self.on_log = on_log
        self.recent: list[dict[str, Tensor]] = []  # losses since the last logged line, still on the device
        self.resume()

    def resume(self) -> None:
        """Restart the clock, so that steps per second exclude validation."""
        self.logged = time.monotonic()

    def losses(self, done: int) -> dict[str, float]:
        """Write the mean losses since the last line. Raises Diverged if one of them is not finite."""
        if not self.recent:
            return {"loss": math.nan}
        losses = {name: torch.stack([r[name] for r in self.recent]).float() for name in self.recent[0]}
        losses = {name: launch.mean(values).cpu() for name, values in losses.items()}
        bad = (~losses["loss"].isfinite()).nonzero()
        steps = len(losses["loss"])
        if len(bad) or self.update.lost:
            self.diverged(done - steps + int(bad[0]) + 1 if len(bad) else done)
        metrics = {"loss": float(losses["loss"].mean())}
        metrics |= {f"loss_{name}": float(v.mean()) for name, v in losses.items() if name != "loss"}
        metrics["lr"] = self.plan.lr_at(done - 1, self.optim)
        if self.update.scaler.is_enabled():
            metrics |= {"loss_scale": self.update.scale, "skipped_steps": self.update.skipped}
        rate = round(steps / max(time.monotonic() - self.logged, 1e-9), 3)
        self.recent = []
        self.resume()
        self._write(done, metrics | {"rate": rate} | held(self.device))
        self.folder.status("running", stage=self.plan.stage, step=done, steps=self.plan.steps, rate=rate)
        return metrics

    def validation(self, done: int, metrics: dict[str, float]) -> None:
        """Write the metrics of a validation."""
        self._write(done, {"validation": metrics})

    def diverged(self, step: int) -> NoReturn:
        """Raise Diverged with the last good checkpoint and the settings to lower."""
        good = checkpoints.load_newest(self.folder.checkpoints, self.plan.stage, parts=())
        remaining = f"the checkpoint of step {good.step} is kept" if good else "no checkpoint had been written yet"
        raise Diverged(
            f"stage {self.plan.stage}: the loss or its gradient is not finite at step {step}; {remaining}. "
            f"Lower stage.{self.plan.stage}.lr={self.plan.lr:g} or optim.clip={self.optim.clip:g}"
        )

    def _write(self, done: int, metrics: dict) -> None:
        if self.folder.is_main:
            self.folder.append({"stage": self.plan.stage, "step": done, **metrics})
            flat = metrics.get("validation", metrics)
            prefix = "validation_" if "validation" in metrics else ""
            self.on_log(self.plan.stage, done, {prefix + name: value for name, value in flat.items()})
