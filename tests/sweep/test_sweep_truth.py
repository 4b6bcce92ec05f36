"""States in a sweep's table, for every combination of a run's status and what is known of its job."""

from __future__ import annotations

import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragaf_exp.core.processes import alive, start_of
from ragaf_exp.sweep.ledger import Record
from ragaf_exp.sweep.slurm import Task, script_text
from ragaf_exp.sweep.status import BAD, ENDED, LIVING, OPEN, JobEvidence, job_status

NOW = 1_000_000.0
FRESH, OLD, FUTURE = NOW - 10, NOW - 300, NOW + 300  # the last: a clock that jumped back


def entry(state: str | None, updated: float = FRESH) -> dict:
    """Content of a run's status.json."""
    return {} if state is None else {"state": state, "updated": updated, "error": "boom" if state == "failed" else None}


@pytest.mark.parametrize(("status", "known", "state"), [
    (entry("done", OLD), JobEvidence(Task("RUNNING")), "done"),
    (entry(None), JobEvidence(Task("PENDING")), "queued"), (entry("preempted"), JobEvidence(Task("PENDING")), "requeued"),
    (entry(None), JobEvidence(Task("RUNNING")), "starting"), (entry("running"), JobEvidence(Task("RUNNING")), "running"),
    (entry("running", OLD), JobEvidence(Task("RUNNING")), "stalled"),
    (entry("running", FUTURE), JobEvidence(lives=True), "stalled"),
    (entry("failed"), JobEvidence(Task("RUNNING")), "starting"),  # tried again
    (entry("failed"), JobEvidence(Task("FAILED")), "failed"), (entry("running"), JobEvidence(Task("FAILED")), "failed"),
    (entry("running"), JobEvidence(Task("TIMEOUT")), "failed"), (entry("running"), JobEvidence(Task("NODE_FAIL")), "lost"),
    (entry("running"), JobEvidence(Task("COMPLETED")), "lost"), (entry(None), JobEvidence(Task("OUT_OF_MEMORY")), "failed"),
    (entry("running"), JobEvidence(Task("CANCELLED")), "cancelled"),
    (entry("preempted"), JobEvidence(Task("CANCELLED")), "preempted"),
    (entry("preempted"), JobEvidence(Task("CANCELLED"), cancelled=True), "cancelled"),
    (entry("running"), JobEvidence(), "running"), (entry("running", OLD), JobEvidence(), "lost"),  # another host, no queue
    (entry("running", FUTURE), JobEvidence(), "lost"), (entry("running"), JobEvidence(lives=False), "lost"),
    (entry("running"), JobEvidence(lives=False, exit=-9), "failed"), (entry(None), JobEvidence(waiting=True), "queued"),
    (entry("running", OLD), JobEvidence(lives=False, waiting=True), "queued"),
    (entry(None), JobEvidence(waiting=None), "queued"),
    (entry("failed"), JobEvidence(waiting=True), "queued"),
    (entry("cancelled"), JobEvidence(waiting=True), "queued"),  # once more
    (entry("failed"), JobEvidence(waiting=True, cancelled=True), "failed"),
    (entry(None), JobEvidence(), "lost"), (entry("preempted"), JobEvidence(), "preempted"),
    (entry("cancelled"), JobEvidence(), "cancelled"),
    (entry("running"), JobEvidence(lives=False, cancelled=True), "cancelled"),
])  # fmt: skip
def test_state(status, known, state):
    assert job_status(status, known, NOW)[0] == state


@given(
    st.sampled_from([None, "running", "done", "failed", "preempted", "cancelled", "nonsense"]), st.floats(allow_nan=True),
    st.sampled_from([None, "PENDING", "SPECIAL_EXIT", "", *LIVING, *ENDED]), st.sampled_from([None, True, False]),
    st.sampled_from([None, True, False]), st.sampled_from([None, 0, 1, -9]), st.booleans(),
)  # fmt: skip
def test_every_combination_has_a_known_state_and_bad_ones_a_reason(state, updated, queue, lives, waiting, code, cancelled):
    task = None if queue is None else Task(queue)
    result, error = job_status(entry(state, updated), JobEvidence(task, lives, waiting, code, cancelled), NOW)
    assert result in {*BAD, *OPEN, "done"}
    assert error or result not in BAD or state == "cancelled"
    assert (result == "done") == (state == "done")


def test_a_process_is_distinguished_from_a_later_one_of_its_number():

    assert alive(os.getpid(), start_of(os.getpid())) and not alive(os.getpid(), 1.0) and not alive(2**22 + 5)


def test_a_dead_process_of_this_host_is_lost_at_once(tmp_path):
    from ragaf_exp.sweep.unmanaged import plain_rows

    run = tmp_path / "0123456789ab"
    run.mkdir()
    status = {"state": "running", "updated": 4e9, "host": socket.gethostname(), "pid": 2**22 + 5}
    (run / "status.json").write_text(json.dumps(status))
    (row,) = plain_rows(tmp_path)
    assert row.state == "lost" and row.error


def test_the_batch_script_asks_for_what_the_config_says(tmp_path):
    from ragaf_exp.config.schema import Cluster

    record = Record(tmp_path / "my runs" / "name")
    with record.locked():
        job = record.new_job("slurm", ["a" * 12, "b" * 12], tmp_path / "code")
    request = Cluster(partition="gpu", setup=["module load x"], gpus=2, tasks=2, parallel=8, extra=["--exclude=n7"])
    text = script_text(record, job, request)
    for line in ("partition=gpu", "array=0-1%8", "gpus-per-node=2", "ntasks-per-node=2", "requeue", "exclude=n7",
                 "open-mode=append", "signal=USR1@60"):  # fmt: skip
        assert f"#SBATCH --{line}\n" in text
    assert "account" not in text and "qos" not in text
    assert text.index("module load x") < text.index("exec srun") and f"'{record.job_file(job)}'" in text
    alone = script_text(record, job, Cluster())
    assert "--signal=B:USR1@60\n" in alone and "srun" not in alone
