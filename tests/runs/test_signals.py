"""A dropped connection, Ctrl-C three times, a killed loader worker: one line, and a run that can be continued."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import psutil
import pytest

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import StepLoader, step_loader, workers_watched
from ragaf_exp.distributed import launch
from ragaf_exp.experiments.experiment import run
from ragaf_exp.runs.folder import run_path
from ragaf_exp.runs.signals import SIGNALS, Stop, Stopped
from ragaf_exp.training.trainer import Trainer

pytestmark = pytest.mark.process

THREE_TIMES = """
import atexit, os, signal
from ragaf_exp.config.command_line import guarded
from ragaf_exp.run import command_line
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.trainer import Trainer

def ctrl_c(call, when):
    def wrapper(self, *args, **facts):
        if when(*args):
            os.kill(os.getpid(), signal.SIGINT)
        return call(self, *args, **facts)
    return wrapper

Trainer.step = ctrl_c(Trainer.step, lambda step, batch: step == 4)
RunFolder.status = ctrl_c(RunFolder.status, lambda state: state == "preempted")
atexit.register(os.kill, os.getpid(), signal.SIGINT)
guarded(command_line)
"""


@pytest.fixture
def words(tiny, tmp_path) -> list[str]:
    return [*tiny, f"runs={tmp_path / 'runs'}", "stage=coarse"]


def state_of(words: list[str]) -> dict:
    return json.loads((run_path(compose_config(words)) / "status.json").read_text())


def test_ctrl_c_three_times(words):
    result = subprocess.run([sys.executable, "-c", THREE_TIMES, *words], capture_output=True, text=True, timeout=280)
    output = [line for line in result.stderr.splitlines() if line and "%|" not in line]
    assert result.returncode == 130 and output[-1].startswith("interrupted; the same command continues"), result.stderr
    assert "Traceback" not in result.stderr and state_of(words)["state"] == "preempted"


def test_a_terminal_that_is_gone(words):
    """As when an ssh connection drops: SIGHUP, and every write to the terminal fails from then on."""
    words = [*words, "stage.coarse.steps=2000", "stage.validate_every=5000"]
    place = run_path(compose_config(words))
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "ragaf_exp.run", *words])
    os.set_blocking(terminal, False)
    end = time.monotonic() + 240
    while not (place / "metrics.jsonl").exists() and time.monotonic() < end:
        _drain(terminal)
        time.sleep(0.05)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    state = state_of(words)
    assert state["state"] == "preempted"
    assert list(place.glob("checkpoints/coarse/*"))[0].name == f"{state['step']:08d}"


def _drain(terminal: int) -> None:
    try:
        os.read(terminal, 1 << 16)
    except OSError:  # nothing to read yet
        return


def test_a_run_under_nohup_outlives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop().listening():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with Stop().listening(), pytest.raises(Stopped, match="SIGHUP"):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert {signal.Signals(number).name for number in SIGNALS} <= set(launch.SIGNAL_NAMES)


def test_a_killed_loader_worker(words, monkeypatch):
    step, killed = Trainer.step, []

    def kill(self, number, batch):
        if number == 4 and not killed:
            killed.extend(psutil.Process().children())
            for worker in killed:
                worker.kill()
        return step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", kill)
    cfg = compose_config([*words, "stage.workers=1", "stage.coarse.steps=40"])
    with pytest.raises(UserError, match="worker.*(killed|exited).*fewer stage.workers; the same command") as error:
        run(cfg)
    assert "\n" not in str(error.value) and killed
    folder = run(cfg)
    assert folder.state["state"] == "done"


def test_a_worker_whose_socket_closes_before_the_signal_of_its_end():
    """A timer stands for PyTorch's handler of SIGCHLD, which raises wherever the process is."""

    def handler(number, frame):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(UserError, match="worker .pid 7. is killed.*fewer stage.workers"), workers_watched():
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            raise ConnectionResetError(104, "Connection reset by peer")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_signals_to_the_whole_group_leave_the_workers_at_work(words, monkeypatch):
    """scancel and a closed terminal send such signals: the run saves a checkpoint at the step's end."""
    step = Trainer.step

    def stop(self, number, batch):
        if number == 4:
            for worker in psutil.Process().children():
                for sent in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                    worker.send_signal(sent)
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", stop)
    with pytest.raises(UserError, match="stopped at step 5 by SIGTERM"):
        run(compose_config([*words, "stage.workers=1", "stage.coarse.steps=40"]))


class Bad:
    """Examples of which none can be read."""

    collate = staticmethod(lambda examples, spans: pytest.fail("collated"))

    def at(self, step: int, index: int) -> None:
        raise UserError(f"photo{index}.png: damaged; restore it")


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_data_in_a_worker_is_one_line(workers):
    with pytest.raises(UserError) as error:
        list(step_loader(Bad(), [[3, 4]], workers))
    assert str(error.value) == "photo3.png: damaged; restore it"


def test_other_faults_keep_their_traceback():
    with pytest.raises(RuntimeError, match="^Caught"), workers_watched():
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0.")
    assert list(StepLoader([1, 2])) == [1, 2]


def test_nothing_is_written_for_a_terminal_that_is_gone(monkeypatch):
    from ragaf_exp.config import command_line as command_lines

    def gone(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.print", gone)
    with pytest.raises(SystemExit) as end:
        command_lines._fail("x")
    assert end.value.code == 2
