"""The steps and learning rates of a stage."""

from __future__ import annotations

from dataclasses import dataclass

from ragaf_exp.config.schema import Optim
from ragaf_exp.training.optimizer import WARM_PART, learning_rate, warm_up


@dataclass(frozen=True)
class StageSchedule:
    """Steps and learning rates of a stage. Region steps have a separate warm-up and cosine decay."""

    stage: str
    steps: int  # optimizer steps, including region_steps
    lr: float  # peak
    last: int  # timesteps are sampled from [0, last)
    recolour: float = 0.0  # share of items that start from wrongly coloured regions
    region_steps: int = 0  # number of first steps that train the region path alone, at a fraction of the cost
    region_batch: int = 1  # batch size of these steps
    region_lr: float = 0.0  # peak of these steps
    scale: int = 1  # factor by which images are downscaled

    def lr_at(self, step: int, optim: Optim) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.region_steps:
            return learning_rate(step, self.region_steps, self.region_lr, optim)
        return learning_rate(step - self.region_steps, self.steps - self.region_steps, self.lr, optim)

    def shortened(self, optim: Optim) -> str:
        """A log line if warm-up is shorter than optim.warmup, else an empty string."""
        parts = [steps for steps in (self.region_steps, self.steps - self.region_steps) if steps]
        reduced = [f"{warm_up(steps, optim)} of {steps} steps" for steps in parts if warm_up(steps, optim) < optim.warmup]
        if not reduced:
            return ""
        return (f"stage {self.stage}: warm-up takes {' and '.join(reduced)}, not optim.warmup={optim.warmup}: "
                f"1/{WARM_PART} of the steps at most")  # fmt: skip
