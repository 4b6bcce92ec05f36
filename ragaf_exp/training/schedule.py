"""What a stage asks of the trainer."""

from __future__ import annotations

from dataclasses import dataclass

from ragaf_exp.config.schema import Optim
from ragaf_exp.training.optimizer import WARM_PART, learning_rate, warm_up


@dataclass(frozen=True)
class StageSchedule:
    """Steps and rates. Each of its two parts has a warm-up and a cosine of its own."""

    stage: str
    steps: int  # optimizer steps, region_steps included
    lr: float  # peak
    last: int  # timesteps are drawn from [0, last)
    recolour: float = 0.0  # share of starts with wrongly coloured regions
    region_steps: int = 0  # the first so many steps train the region path alone, at a small part of the cost
    region_batch: int = 1  # items of each of them
    region_lr: float = 0.0  # peak of theirs
    scale: int = 1  # items are made so many times smaller

    def lr_at(self, step: int, optim: Optim) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.region_steps:
            return learning_rate(step, self.region_steps, self.region_lr, optim)
        return learning_rate(step - self.region_steps, self.steps - self.region_steps, self.lr, optim)

    def shortened(self, optim: Optim) -> str:
        """One line where warm-up is shorter than optim.warmup; empty where it is not."""
        parts = [steps for steps in (self.region_steps, self.steps - self.region_steps) if steps]
        found = [f"{warm_up(steps, optim)} of {steps} steps" for steps in parts if warm_up(steps, optim) < optim.warmup]
        if not found:
            return ""
        return (f"stage {self.stage}: warm-up takes {' and '.join(found)}, not optim.warmup={optim.warmup}: "
                f"1/{WARM_PART} of the steps at most")  # fmt: skip
