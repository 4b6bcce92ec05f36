"""One run as SLURM jobs: submitted, watched, and its results."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import Cluster

from ragaf_exp.runs.folder import is_stale

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STEPS, INTERVAL, PACE = 24, 6, 0.3  # steps, steps per checkpoint, seconds per step
PATIENCE = float(os.environ.get("RAGAF_SLURM_PATIENCE", 600))  # seconds, for anything to happen
TINY = f"""
    name=m data.size=32 data.train=32 data.val=4 data.test=4 stage=coarse
    backbone.widths=[32,32] backbone.heads=2 text.width=32 text.heads=2 text.layers=1 hint.width=16
    ragaf.width=32 ragaf.heads=2 ragaf.layers=1 sampler.steps=2 memory.device=cpu memory.precision=no logger=none
    stage.batch=4 stage.coarse.steps={STEPS} optim=adamw optim.warmup=2 stage.log_every=2 stage.validate_every=100
    stage.checkpoint_every={INTERVAL} stage.keep=4
    eval.test_items=2 eval.batch=2 eval.validation_items=2 eval.grid=1 eval.pictures=1 eval.bootstrap=5 eval.metrics=[]
    eval.validation_metrics=false
""".split()
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")


class Member:
    """One run; every job that is submitted for it continues it in its one folder."""

    def __init__(self, cluster: Cluster, base: Path, name: str):
        self.cluster, self.runs = cluster, base / name
        self.runs.mkdir(parents=True)
        self.trace, self.log = self.runs / "steps", self.runs / "log"

    def submit(
        self, fault: str = "none", at: int = 0, pace: float = PACE, options: str = "--time=10", tasks: int = 1,
        view: str = "", execute: bool = True,
    ) -> str:  # fmt: skip
        """The job's id. view: a shell command in the process's own view of the file system, before it starts."""
        program = [sys.executable, str(HERE / "member.py"), fault, str(at), str(pace), str(self.trace), f"runs={self.runs}"]
        words = " ".join(f"'{word}'" for word in [*program, *TINY])
        own = view or fault in ("full", "readonly")
        if own:
            words = f"unshare --mount sh -c '{view or ':'}; exec \"$@\"' sh {words}"
        if tasks > 1:
            words = f"srun --kill-on-bad-exit=1 {words}"
        script = self.runs / f"job{len(list(self.runs.glob('*.sh')))}.sh"
        script.write_text(f"#!/bin/bash\n{'exec ' if execute else ''}{words}\n")
        command = ["sbatch", "--parsable", "--requeue", "-n", tasks, "-o", self.log, "--open-mode=append",
                   "-D", ROOT, *options.split(), script]  # fmt: skip
        environment = {"PYTHONPATH": f"{ROOT}", "OMP_NUM_THREADS": "1"}
        self.past = {pid for pid, _ in self.steps()}
        while (answer := self.cluster(*command, env=environment)).returncode:
            assert "Unable to contact" in answer.stderr, answer.stderr  # while slurmctld restarts
            time.sleep(0.5)
        return answer.stdout.strip()

    # --- what it writes

    @property
    def folder(self) -> Path:
        return next(path for path in (self.runs / "m").glob("*") if path.is_dir())

    @property
    def status(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / "status.json").read_text())
        except (FileNotFoundError, StopIteration):
            return {}

    def steps(self, rank: int = 0) -> list[tuple[int, int]]:
        """(process, step) in the order in which they were done."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [(int(pid), int(step)) for pid, step, of in map(str.split, lines) if int(of) == rank]

    def starts(self) -> list[tuple[int, int]]:
        """(last step before, first step) of every process but the first."""
        steps = self.steps()
        return [(a, b) for (one, a), (other, b) in zip(steps, steps[1:], strict=False) if one != other]

    def weights(self) -> dict[str, bytes]:
        place = self.folder / "checkpoints/coarse" / f"{STEPS:08d}"
        return {path.name: path.read_bytes() for path in place.glob("*.safetensors")}

    def losses(self) -> dict[int, float]:
        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return {row["step"]: row["loss"] for row in rows if "loss" in row}

    # --- waiting

    def at_step(self, step: int) -> None:
        """Wait until a process of the newest job has done this step."""
        self.until(lambda: any(s >= step and pid not in self.past for pid, s in self.steps()), f"step {step}")

    def in_state(self, *states: str) -> dict[str, Any]:
        self.until(lambda: self.status.get("state") in states, f"state {states}")
        return self.status

    def stale(self) -> float:
        """Seconds until a reader of status.json knows that no process runs this."""
        begun = time.monotonic()
        self.until(lambda: is_stale(self.status), "stale status")
        return time.monotonic() - begun

    def ended(self, job: str) -> str:
        """The state in which SLURM's job ended."""
        self.until(lambda: self.job_state(job) in OVER, f"end of job {job}")
        return self.job_state(job)

    def job_state(self, job: str) -> str:
        words = self.facts(job)
        return words.get("JobState", "")

    def facts(self, job: str) -> dict[str, str]:
        output = self.cluster("scontrol", "show", "job", "-o", job).stdout.split()
        return dict(word.split("=", 1) for word in output if "=" in word)

    def until(self, ready: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not ready():
            if time.monotonic() > end:
                log = self.log.read_text()[-3000:] if self.log.exists() else ""
                raise AssertionError(f"{self.runs.name}: no {what} in {PATIENCE:g} s; {self.status}\n{log}")
            time.sleep(0.2)

    def kill(self) -> None:
        os.kill(self.status["pid"], signal.SIGKILL)
