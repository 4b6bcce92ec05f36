"""A run of the fault matrix: steps at a set pace, so that a fault hits it between them, and one fault that it causes.

python tests/slurm/member.py FAULT STEP PACE LOG overrides...
FAULT: after STEP steps; none for no fault. PACE: seconds per step. LOG: gets a line for each step.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

from ragaf_exp.config.command_line import guarded
from ragaf_exp.runs.signals import STOP


def boom(trainer) -> None:
    raise RuntimeError("boom")


def leave(trainer) -> None:
    os._exit(9)


def hang(trainer) -> None:
    while True:
        time.sleep(1)


def nan(trainer) -> None:
    next(p for p in trainer.bare.parameters() if p.requires_grad).data.fill_(math.nan)


def clock(trainer) -> None:
    now = time.time
    time.time = lambda: now() - 7200


def mounted(*options: str):
    """Mount something over the checkpoints, in this process's own view of the file system."""

    def mount(trainer) -> None:
        place = str(trainer.folder.checkpoints / "coarse")
        if "tmpfs" in options:
            subprocess.run(["mount", *options, place], check=True)
        else:
            subprocess.run(["mount", "--bind", place, place], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)

    return mount


FAULTS = {"none": lambda trainer: None, "boom": boom, "leave": leave, "hang": hang, "nan": nan, "clock": clock,
          "full": mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs"), "readonly": mounted("ro")}  # fmt: skip


def main(fault: str, at: int, pace: float, output: Path) -> None:
    from ragaf_exp.run import command_line
    from ragaf_exp.training.trainer import Trainer

    step = Trainer.step

    def paced(self, number, batch) -> None:
        step(self, number, batch)
        with open(output, "a") as file:
            file.write(f"{os.getpid()} {number + 1} {os.environ.get('SLURM_PROCID', 0)}\n")
        time.sleep(pace)
        if number + 1 == at:
            FAULTS[fault](self)

    Trainer.step = paced
    command_line()


if __name__ == "__main__":
    words = sys.argv[1:5]
    del sys.argv[1:5]
    with STOP.listening():
        guarded(lambda: main(words[0], int(words[1]), float(words[2]), Path(words[3])))
