"""The lock of a run folder: one owner at a time, whatever dies, sleeps, or sets the clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core import processes
from ragaf_exp.core.errors import UserError
from ragaf_exp.runs import folder as runfolder
from ragaf_exp.runs import slurm
from ragaf_exp.runs.folder import RunFolder, is_stale
from ragaf_exp.runs.lock import HISTORY, Lock, LockHeld
from ragaf_exp.runs.owner import Owner

TAKE_AND_WAIT = """
import sys, time
from pathlib import Path
from ragaf_exp.runs.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire()
print("taken", flush=True)
time.sleep(60)
"""


class Clock:
    """Time that passes only in sleep; `during` is called after each."""

    def __init__(self, during=lambda: None):
        self.now, self.during = 0.0, during

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.during()


def lock(folder: Path, clock: Clock | None = None) -> Lock:
    clock = clock or Clock()
    return Lock(folder, patience=60, monotonic=clock, sleep=clock.sleep)


def held_by(folder: Path, **other) -> Path:
    """The file of an owner that differs from this process."""
    first = lock(folder)
    first.acquire()
    path = folder / ".owners" / "00000001.json"
    path.write_text(json.dumps({**replace(Owner.me(), **other).as_dict(), "released": False}))
    return path


ELSEWHERE = {"host": "node7", "boot": "another"}


def test_one_owner_at_a_time(tmp_path):
    first, second = lock(tmp_path), lock(tmp_path)
    first.acquire()
    with pytest.raises(LockHeld, match=f"another process .*process {os.getpid()} on"):
        second.acquire(wait=2)
    assert first.is_held() and not second.is_held()
    first.release()
    second.acquire()
    assert second.is_held() and not first.is_held()
    first.release()  # once more: it has nothing left to release
    assert second.is_held()


def test_a_killed_owner_is_followed_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", TAKE_AND_WAIT, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"taken\n"
    with pytest.raises(LockHeld, match=str(process.pid)):
        lock(tmp_path).acquire()
    process.kill()  # until it is waited for, its entry stays: that is no life
    clock = Clock(lambda: time.sleep(0.01))
    taker = lock(tmp_path, clock)
    taker.acquire(wait=30)
    assert taker.is_held() and clock.now < 30
    process.wait()
    process.stdout.close()


def test_a_reused_process_number_is_not_the_owner(tmp_path):
    held_by(tmp_path, started=Owner.me().started - 1)
    lock(tmp_path).acquire()


def test_an_owner_elsewhere_is_dead_once_its_heartbeat_stands_still(tmp_path):
    held_by(tmp_path, **ELSEWHERE)
    clock = Clock()
    taker = lock(tmp_path, clock)
    taker.acquire()
    assert taker.is_held() and 60 <= clock.now < 70


@pytest.mark.parametrize("jump", [-7200, 3600, 1])
def test_a_clock_that_jumps_neither_kills_nor_revives_an_owner(tmp_path, jump):
    path = held_by(tmp_path, **ELSEWHERE)
    os.utime(path, (time.time() + jump,) * 2)
    clock = Clock()
    taker = lock(tmp_path, clock)
    taker.acquire()  # no heartbeat since: dead, wherever its last one lies
    assert 60 <= clock.now < 70

    taker.release()
    second = tmp_path / "second"
    path = held_by(second, **ELSEWHERE)
    clock = Clock(lambda: os.utime(path, (time.time() + jump - clock.now,) * 2))  # each beat earlier than the last
    with pytest.raises(LockHeld, match="node7"):
        lock(second, clock).acquire()
    assert clock.now < 5  # one heartbeat is enough


def test_a_job_that_slurm_says_has_ended_is_dead(tmp_path, monkeypatch):
    states = {"7": "RUNNING", "8": "CANCELLED", "9": None}
    monkeypatch.setattr(slurm, "state", states.get)
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    for job, wanted in (("7", None), ("8", False), ("9", None)):
        output = replace(Owner.me(), **ELSEWHERE, job=job, cluster="here")
        assert output.alive() is wanted
        assert replace(output, cluster="there").alive() is None


def test_without_proc_a_process_is_known_by_its_number(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "PROC", tmp_path)
    me = Owner.me()
    assert me.boot == "" and me.alive() is True
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert replace(me, pid=gone.pid).alive() is False and replace(me, host="node7").alive() is None


def test_a_kill_while_the_lock_is_taken(tmp_path):
    """Its file is there and empty: its process is waited for as long as for a heartbeat."""
    (tmp_path / ".owners").mkdir()
    (tmp_path / ".owners" / "00000001.json").touch()
    clock = Clock()
    lock(tmp_path, clock).acquire()
    assert 60 <= clock.now < 70


def test_of_many_takers_one_wins(tmp_path):
    for turn in range(20):
        folder = tmp_path / str(turn)
        held_by(folder, started=1)  # dead
        ready, locks = threading.Barrier(8), [lock(folder) for _ in range(8)]

        def attempt(taker, ready=ready):
            ready.wait()
            try:
                taker.acquire()
            except LockHeld:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(attempt, locks))
        assert sum(won) == 1
        assert [taker.is_held() for taker in locks] == won


def test_a_taker_that_slept_between_reading_and_acquiring_the_lock(tmp_path):
    held_by(tmp_path, started=1)
    sleeper = lock(tmp_path)
    sleeper.me = Owner.me()
    for _ in range(HISTORY + 3):  # takers come and go meanwhile; the number it saw as free is free again
        other = lock(tmp_path)
        other.acquire()
        other.release()
    other = lock(tmp_path)
    other.acquire()
    assert not (tmp_path / ".owners" / "00000002.json").exists()
    assert not sleeper._create(2)
    assert other.is_held() and not sleeper.is_held()
    assert len(list((tmp_path / ".owners").iterdir())) == HISTORY


def test_a_full_disk_leaves_no_owner(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", full)
        with pytest.raises(OSError, match="No space"):
            lock(tmp_path).acquire()
    assert not list((tmp_path / ".owners").iterdir())


def test_a_forked_child_does_not_release_its_parents_lock(tmp_path):
    mine = lock(tmp_path)
    mine.acquire()
    if (child := os.fork()) == 0:
        mine.release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(LockHeld):
        lock(tmp_path).acquire()


# --- run folders


def test_a_run_that_was_taken_over_writes_no_more(tiny, tmp_path):
    folder = RunFolder.create(compose_config([*tiny, f"runs={tmp_path}"]))
    folder.status("running", step=3)
    (folder.path / ".owners" / "00000002.json").write_text(
        json.dumps({**replace(Owner.me(), **ELSEWHERE).as_dict(), "released": False})
    )
    before = folder.state
    folder.beat()
    with pytest.raises(UserError, match="taken this run over"):
        folder.status("done")
    with pytest.raises(UserError, match="taken this run over"):
        folder.append({"stage": "coarse", "step": 4})
    assert folder.state == before


def test_the_heartbeat_updates_the_status_and_the_lock(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(runfolder, "BEAT_S", 0.05)
    folder = RunFolder.create(compose_config([*tiny, f"runs={tmp_path}"]))
    folder.status("running", step=3)
    end = time.monotonic() + 10
    first, beat = folder.state["updated"], os.stat(folder.path / ".owners" / "00000001.json").st_mtime_ns
    while folder.state["updated"] == first and time.monotonic() < end:
        time.sleep(0.02)
    assert folder.state["updated"] > first and folder.state["step"] == 3
    assert os.stat(folder.path / ".owners" / "00000001.json").st_mtime_ns > beat
    folder.status("failed", error="it")
    time.sleep(0.2)
    assert folder.state["state"] == "failed" and folder.state["error"] == "it"  # no beat says otherwise
    folder.release()
    RunFolder.create(compose_config([*tiny, f"runs={tmp_path}"])).release()


def test_a_stale_status_is_recognised():
    output = {"state": "running", "updated": 1000.0}
    assert not is_stale(output, 1030) and is_stale(output, 1050)
    assert is_stale(output, 100)  # the clock was set back, and nothing was written since
    assert not is_stale({**output, "state": "done"}, 2000) and not is_stale({**output, "updated": time.time()})


def test_looking_at_a_run_folder_needs_no_torch(process):
    code = "import sys, ragaf_exp.runs.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
