"""Signals that ask a run to stop, at every phase of it, and the undisturbed run's bytes after it went on."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from ragaf_exp import experiment
from ragaf_exp.config.compose import composed
from ragaf_exp.errors import UserError
from ragaf_exp.experiment import run
from ragaf_exp.jobs import slurm
from ragaf_exp.jobs.processes import first_host
from ragaf_exp.jobs.stop import SIGNALS, STOP, Stop, Stopped
from ragaf_exp.runfolder import RunFolder
from ragaf_exp.training.checkpoint import load_newest
from ragaf_exp.training.trainer import Trainer


def tensors(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "checkpoints").rglob("*.safetensors")}


def validations(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "validation" in row]


@pytest.fixture
def arguments(tiny, tmp_path):
    return composed([*tiny, f"runs={tmp_path}"])


def stopped(cfg, finished) -> RunFolder:
    with pytest.raises(UserError, match="the same command continues"):
        run(cfg)
    folder = RunFolder(Path(cfg.runs) / cfg.name / finished.name)
    return folder


def test_at_a_step_that_is_no_checkpoint(arguments, finished, monkeypatch):
    """Step 5 of stage 1, and then in stage 2's validation: both resume to the same bytes."""
    step = Trainer.step

    def signalled(self, number, batch):
        step(self, number, batch)
        if (self.plan.stage, number) == ("coarse", 4):
            os.kill(os.getpid(), signal.SIGUSR1)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", signalled)
        folder = stopped(arguments, finished)
    assert folder.state["state"] == "preempted" and folder.state["step"] == 5
    assert load_newest(folder.checkpoints, "coarse").step == 5

    grid = experiment.validation_grid

    def cut_short(*rest):
        if (folder.checkpoints / "refine" / "00000006").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return grid(*rest)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "validation_grid", cut_short)
        stopped(arguments, finished)
    assert load_newest(folder.checkpoints, "refine").step == 8
    assert len(validations(folder.path)) == len(validations(finished)) - 2  # of steps 8 and 9 of stage 2

    with monkeypatch.context() as patch:  # a signal while it is evaluated
        patch.setattr(experiment, "evaluate", lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
        stopped(arguments, finished)
    assert folder.state["state"] == "preempted" and folder.state["trained"]

    assert run(arguments).state["state"] == "done"
    same = {k: v for k, v in tensors(finished).items() if k in tensors(folder.path)}
    assert len(same) >= 9 and all(tensors(folder.path)[k] == v for k, v in same.items())
    assert validations(folder.path) == validations(finished)


@pytest.mark.parametrize(
    ("says", "state", "queued"),
    [("RUNNING", "preempted", 1), ("CANCELLED", "cancelled", 0), ("TIMEOUT", "preempted", 1), (None, "preempted", 1)],
)
def test_in_a_job_slurm_is_asked_why(says, state, queued, arguments, finished, monkeypatch):
    calls = []
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(slurm, "state", lambda job: says)
    monkeypatch.setattr(slurm, "requeue", lambda job: calls.append(job))
    monkeypatch.setattr(experiment, "Experiment", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    folder = stopped(arguments, finished)
    assert folder.state["state"] == state and folder.state["job"] == "77" and calls == ["77"] * queued


def test_an_orphan_of_a_job_stops(arguments, finished, monkeypatch):
    """What started it was killed: the job is over, and may run elsewhere soon."""
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(slurm, "requeue", lambda job: pytest.fail("it is not this process's to queue"))

    def orphaned(*_):
        monkeypatch.setattr(os, "getppid", lambda: 1)
        STOP.watch_parent()

    monkeypatch.setattr(experiment, "Experiment", orphaned)
    folder = stopped(arguments, finished)
    assert folder.state["state"] == "failed" and "is gone" in folder.state["error"]


def test_a_launchers_own_handler_queues_the_job(monkeypatch):
    calls = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: calls.append(number))
    try:
        stop = Stop()
        with pytest.raises(Stopped, match="SIGTERM"), stop.listening():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                stop.hand_on()
        assert calls == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_handlers_are_put_back_and_a_second_signal_does_not_raise_again():
    before = [signal.getsignal(number) for number in SIGNALS]
    stop = Stop()
    with stop.listening():
        with stop.noted():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.asked == "SIGUSR1"
        os.kill(os.getpid(), signal.SIGTERM)  # a run that is writing its last checkpoint is left to it
        assert stop.asked == "SIGTERM"
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with stop.listening():
        assert stop.asked is None


def test_in_another_thread_nothing_is_handled():
    told = []

    def thread():
        with STOP.listening():
            told.append(signal.getsignal(signal.SIGTERM))

    worker = threading.Thread(target=thread)
    worker.start()
    worker.join()
    assert told == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [("vm", "vm"), ("gpu[07-09,12],cpu1", "gpu07"), ("a-1,b", "a-1"), ("rack2n[3]-ib", "rack2n3-ib"), ("n[1,4]", "n1")],
)
def test_the_first_of_a_node_list(nodes, wanted):
    assert first_host(nodes) == wanted
