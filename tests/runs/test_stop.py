"""Signals that ask a run to stop, at every phase of it, and the undisturbed run's bytes after it went on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.evaluation.samples import SampleCache
from ragaf_exp.experiments import experiment
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.start import start
from ragaf_exp.runs import restarts, slurm
from ragaf_exp.runs import signals as stop_module
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder, run_path
from ragaf_exp.runs.signals import SIGNALS, STOP, Stop, Stopped
from ragaf_exp.store.records import Records, key_of
from ragaf_exp.training.ema import Ema
from ragaf_exp.training.trainer import Trainer
from ragaf_exp.viz import panels

pytestmark = pytest.mark.process


def tensors(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "checkpoints").rglob("*.safetensors")}


def validations(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "validation" in row]


@pytest.fixture
def arguments(tiny, tmp_path):
    return compose_config([*tiny, f"runs={tmp_path}"])


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

    grid = panels.validation_grid

    def cut_short(*rest):
        if (folder.checkpoints / "refine" / "00000006").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return grid(*rest)

    with monkeypatch.context() as patch:
        patch.setattr(panels, "validation_grid", cut_short)
        stopped(arguments, finished)
    assert load_newest(folder.checkpoints, "refine").step == 8
    assert len(validations(folder.path)) == len(validations(finished)) - 2  # of steps 8 and 9 of stage 2

    with monkeypatch.context() as patch:  # a signal while it is evaluated
        patch.setattr("ragaf_exp.evaluation.run.evaluate", lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
        stopped(arguments, finished)
    assert folder.state["state"] == "preempted" and folder.state["trained"]

    assert run(arguments).state["state"] == "done"
    same = {k: v for k, v in tensors(finished).items() if k in tensors(folder.path)}
    assert len(same) >= 9 and all(tensors(folder.path)[k] == v for k, v in same.items())
    assert validations(folder.path) == validations(finished)


SAYS = "JobId=77 JobState={} Reason=None Restarts={} RunTime={} TimeLimit=00:05:00 StartTime=x PreemptTime={}\n"


@pytest.mark.parametrize(
    ("says", "state"),
    [
        (("COMPLETING", 0, "00:01:00", "None"), "cancelled"), (("COMPLETING", 1, "00:01:00", "None"), "preempted"),
        (("COMPLETING", 0, "00:05:02", "None"), "preempted"), (("COMPLETING", 0, "00:01:00", "2026-11-20"), "preempted"),
        (("RUNNING", 0, "00:01:00", "None"), "preempted"), (("CANCELLED", 0, "00:01:00", "None"), "cancelled"),
        (None, "preempted"),
    ],
)  # fmt: skip
def test_in_a_job_slurm_decides_between_cancelled_and_preempted(says, state, arguments, finished, monkeypatch):
    """States that SLURM 22.05 gives for scancel, a requeue, the time limit, preemption, and none of these."""
    queued, answer = [], None if says is None else subprocess.CompletedProcess((), 0, SAYS.format(*says), "")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(slurm, "_ask", lambda *command: answer)
    monkeypatch.setattr(slurm, "requeue", queued.append)
    monkeypatch.setattr(experiment, "Training", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    folder = stopped(arguments, finished)
    assert folder.state["state"] == state and folder.state["job"] == "77"
    assert queued == (["77"] if state == "preempted" else [])


def test_a_job_that_is_stopped_while_it_starts_is_queued_again(arguments, monkeypatch):
    queued = []
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setattr(slurm, "requeue", queued.append)
    monkeypatch.setattr(slurm, "cancelled", lambda job: False)
    monkeypatch.setattr(RunFolder, "create", lambda cfg, lacks: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(UserError, match="stopped by SIGUSR1 while it started; the same command continues"):
        run(arguments)
    assert queued == ["9"]


@pytest.mark.parametrize("when", ["importing", "starting", "preparing"])
def test_a_job_whose_limit_is_shorter_than_its_start_is_not_queued_for_ever(arguments, monkeypatch, when):
    """The fifth start in a row that keeps nothing fails, wherever in its start the signal finds it."""
    queued, folder = [], RunFolder(run_path(arguments))
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setattr(slurm, "requeue", queued.append)
    monkeypatch.setattr(slurm, "cancelled", lambda job: False)
    monkeypatch.setattr(slurm, "_ask", lambda *c: subprocess.CompletedProcess(c, 0, "JobId=9 TimeLimit=00:01:00\n", ""))

    def signalled(*_):
        os.kill(os.getpid(), signal.SIGUSR1)

    if when == "importing":  # an import that takes long, as the first of a node does
        monkeypatch.setitem(sys.modules, "ragaf_exp.experiments.experiment", Importing(signalled))
    else:
        owner, name = (RunFolder, "create") if when == "starting" else (experiment, "Training")
        monkeypatch.setattr(owner, name, staticmethod(signalled))
    output = []
    for _ in range(restarts.STARTS):
        with pytest.raises(UserError) as error:
            start(arguments)
        output.append(str(error.value))
    assert queued == ["9"] * (restarts.STARTS - 1) and all("the same command continues" in line for line in output[:-1])
    assert "stopped 5 times in a row" in output[-1] and "00:01:00" in output[-1] and "cluster.minutes" in output[-1]
    assert (folder.state["state"], folder.state["error"]) == ("failed", output[-1])


class Importing(types.ModuleType):
    """A module within whose import something happens."""

    def __init__(self, happens):
        super().__init__("importing")
        self._happens = happens

    def __getattr__(self, name):
        if name == "run":
            self._happens()
        raise AttributeError(name)


def test_starts_that_keep_something_are_not_counted(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setattr(slurm, "_ask", lambda *c: None)
    assert [restarts.requeue_loop_reason(tmp_path, False) for _ in range(4)] == [None] * 4
    assert restarts.requeue_loop_reason(tmp_path, True) is None
    assert [restarts.requeue_loop_reason(tmp_path, False) for _ in range(4)] == [None] * 4
    monkeypatch.setenv("SLURM_JOB_ID", "10")  # submitted again, with more time perhaps
    assert [bool(restarts.requeue_loop_reason(tmp_path, False)) for _ in range(5)] == [False] * 4 + [True]
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert restarts.requeue_loop_reason(tmp_path, False) is None  # one of a job's processes counts
    monkeypatch.delenv("SLURM_JOB_ID")
    assert restarts.requeue_loop_reason(tmp_path, False) is None


@pytest.mark.parametrize("what", ["line", "images", "features"])
def test_what_counts_as_progress(tmp_path, what):
    folder = RunFolder(tmp_path)
    assert not folder.progressed
    if what == "line":
        folder.append({"step": 1})
    elif what == "images":
        SampleCache(folder.samples, "f", folder.mark_progress).run_once("some", lambda: None)
    else:
        records = Records(tmp_path / "features", {"x": ("<f4", (1,))}, {}, folder.mark_progress)
        records.write(key_of("a"), {"x": np.zeros(1, np.float32)})
        assert not folder.progressed, "it has not reached the disk"
        records.flush()
    assert folder.progressed


def test_times_in_slurms_format():
    assert slurm._seconds("1-02:03:04") == 93784 and slurm._seconds("00:05:00") == 300
    assert slurm._seconds("UNLIMITED") == slurm._seconds("Partition_Limit") == float("inf")


def test_a_task_of_an_array_is_queried_and_requeued_alone(monkeypatch):
    """An array's number is also that of its last task; given this number, SLURM lists and requeues all tasks."""
    lines = "JobId=9 ArrayJobId=9 ArrayTaskId=2 JobState=RUNNING Reason=None\nJobId=7 ArrayJobId=9 JobState=CANCELLED\n"
    requested = []

    def answer(*command):
        requested.append(command)
        return subprocess.CompletedProcess(command, 0, lines, "")

    monkeypatch.setattr(slurm, "_ask", answer)
    assert (slurm.state("9"), slurm.state("7"), slurm.state("8")) == ("RUNNING", "CANCELLED", None)
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    assert slurm.name() == "9"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "9")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    STOP.requeue()
    assert requested[-1] == ("scontrol", "requeue", "9_2")


def test_an_unknown_job_and_an_unreachable_controller_are_distinguished(monkeypatch):
    def state_after(code, words):
        monkeypatch.setattr(slurm, "_ask", lambda *c: subprocess.CompletedProcess(c, code, "", words))
        return slurm.state("9")

    assert state_after(1, "slurm_load_jobs error: Invalid job id specified") == "UNKNOWN"
    assert state_after(1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)") is None
    monkeypatch.setattr(slurm, "_ask", lambda *c: None)
    assert slurm.state("9") is None and slurm.requeue("9") is False


def test_a_job_is_queued_again_once_slurmctld_is_back(monkeypatch):
    answers = [(1, "scontrol: error: Unable to contact slurm controller"), (0, "")]
    monkeypatch.setattr(slurm, "PAUSE_S", 0)
    monkeypatch.setattr(slurm, "_ask", lambda *c: subprocess.CompletedProcess(c, answers[0][0], "", answers.pop(0)[1]))
    assert slurm.requeue("9") and not answers
    answers = [(1, "Requested operation is presently disabled for job 9")]
    assert not slurm.requeue("9")


def test_an_orphan_of_a_job_stops(arguments, finished, monkeypatch):
    """Its parent process was killed: the job is over, and may soon run elsewhere."""
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(slurm, "requeue", lambda job: pytest.fail("it is not this process's to queue"))

    def orphaned(*_):
        monkeypatch.setattr(os, "getppid", lambda: 1)
        STOP.watch_parent()

    monkeypatch.setattr(experiment, "Training", orphaned)
    folder = stopped(arguments, finished)
    assert folder.state["state"] == "failed" and "parent process has ended" in folder.state["error"]


def test_a_launchers_own_handler_queues_the_job(monkeypatch):
    calls = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: calls.append(number))
    try:
        stop = Stop()
        with pytest.raises(Stopped, match="SIGTERM"), stop.listening():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                stop.requeue()
        assert calls == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_handlers_are_put_back_and_a_run_that_is_ending_is_left_to_it():
    before = [signal.getsignal(number) for number in SIGNALS]
    stop = Stop()
    with stop.listening():
        with pytest.raises(Stopped, match="SIGUSR1"):
            os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Stopped, match="SIGTERM"):  # a library's code swallowed the first, perhaps
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.state() == "preempted"
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with stop.listening():
        assert stop.signal_name is None


def test_a_signal_that_a_callback_swallows_is_raised_again(monkeypatch):
    """numba's compiler, which calls Python from C, swallowed one."""
    monkeypatch.setattr(stop_module, "REMIND_S", 0.05)
    stop = Stop()
    with stop.listening(), pytest.raises(Stopped):
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(200):
            time.sleep(0.05)


def test_a_deferred_signal_is_not_lost():
    """Also one between the last step's check and the loop's end; no `except Exception` catches it."""
    stop = Stop()
    with stop.listening(), pytest.raises(Stopped, match="SIGUSR1"):
        try:
            with stop.deferred():
                os.kill(os.getpid(), signal.SIGUSR1)
                assert stop.signal_name == "SIGUSR1"
        except Exception:
            pytest.fail("taken for an error")


def test_in_another_thread_nothing_is_handled():
    output = []

    def thread():
        with STOP.listening():
            output.append(signal.getsignal(signal.SIGTERM))

    worker = threading.Thread(target=thread)
    worker.start()
    worker.join()
    assert output == [signal.getsignal(signal.SIGTERM)]


class Disturbed(list):
    """Pairs of weights; a signal comes after the first of them, the n-th time that they are gone through."""

    def __init__(self, pairs, at: int):
        super().__init__(pairs)
        self.at, self.times = at, 0

    def __iter__(self):
        self.times += 1
        for place, pair in enumerate(super().__iter__()):
            if place == 1 and self.times == self.at:
                os.kill(os.getpid(), signal.SIGUSR1)
            yield pair


@pytest.mark.parametrize("at", [1, 2])
def test_a_signal_while_the_average_changes_places_with_the_weights(at):
    """memory.ema=cpu: at the beginning or the end of a validation. Neither is left half in the other's place."""
    trained = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    ema = Ema(trained, 0.9, "cpu")
    for mean in ema.means():
        mean.add_(1)
    before = [(mean.clone(), value.detach().clone()) for mean, value in ema.pairs]
    ema._pairs, served = Disturbed(ema.pairs, at), []
    with STOP.listening():
        with pytest.raises(Stopped), STOP.deferred(only=False), ema.serving() as model:
            served.append(next(model.parameters()).detach().clone())
        STOP.ending = True
    assert [torch.equal(weight, before[0][0]) for weight in served] == ([] if at == 1 else [True])
    for (mean, value), (old_mean, old_value) in zip(list(ema.pairs), before, strict=True):
        assert torch.equal(mean, old_mean) and torch.equal(value, old_value)
