"""Sweeps on a real SLURM, with members that take no time: true states, edits without effect, nothing queued twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the members are described
from sweep_checkout import STUBBED, make_checkout

pytestmark = pytest.mark.skipif(not os.environ.get("RAGAF_SLURM"), reason="by make slurm-test only")
PATIENCE = 120.0


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("sweep") / "checkout")


@pytest.fixture
def call(cluster, checkout) -> Callable:
    """call(module, *words) -> `python -m module words` in the checkout, on the cluster."""

    def run(module: str, *words: object) -> subprocess.CompletedProcess:
        return cluster(sys.executable, "-m", module, *words, timeout=PATIENCE, cwd=checkout)

    return run


def question(checkout: Path, name: str, seeds: str, more: str = "") -> None:
    words = f"cluster.memory_gb=1, cluster.cpus=1, optim.warmup=5{more}"
    (checkout / "sweeps" / f"{name}.yaml").write_text(f"overrides: [{words}]\ngrid:\n  seed: {seeds}\n")


def until(call: Callable, name: str, states: dict[str, str]) -> dict[str, dict]:
    """The members by seed, when they are in these states."""
    end = time.monotonic() + PATIENCE
    while True:
        output = json.loads(call("ragaf_exp.sweep", "status", f"runs/{name}", "format=json").stdout)["members"]
        result = {m["differs"]["seed"]: m for m in output}
        if all(result[seed]["state"] == state for seed, state in states.items()):
            return result
        assert time.monotonic() < end, {seed: m["state"] for seed, m in result.items()}
        time.sleep(1)


def attempts(member: dict) -> list[str]:
    return (Path(member["path"]) / "attempts").read_text().splitlines()


def test_states_retry_and_cancel(call, checkout):
    question(checkout, "states", "[0, 1, 2, 3]")
    first = call("ragaf_exp.sweep", "submit", "states", "launcher=slurm")
    assert first.returncode == 0 and "4 of 4" in first.stdout, first.stderr
    result = until(call, "states", {"0": "done", "1": "failed", "2": "failed", "3": "running"})
    assert result["1"]["error"] == "the loss is nan" and result["2"]["error"].startswith("the job failed")
    assert call("ragaf_exp.sweep", "cancel", "runs/states").stdout.startswith("cancelled 1 members")
    until(call, "states", {"3": "cancelled"})
    assert "3 of 4 members queued" in call("ragaf_exp.sweep", "retry", "runs/states", "launcher=slurm").stdout
    result = until(call, "states", {"0": "done", "1": "failed", "2": "failed", "3": "running"})
    assert [len(attempts(result[seed])) for seed in "0123"] == [1, 2, 2, 2]
    call("ragaf_exp.sweep", "cancel", "runs/states")


def test_edits_while_queued_change_nothing_and_two_submissions_queue_once(call, checkout, cluster):
    question(checkout, "held", "[0, 4]")
    cluster("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        command = [sys.executable, "-m", "ragaf_exp.sweep", "submit", "held", "launcher=slurm"]
        both = [subprocess.Popen(command, cwd=checkout, env=cluster.environment, stdout=subprocess.PIPE, text=True)
                for _ in range(2)]  # fmt: skip
        output = sorted(process.communicate(timeout=PATIENCE)[0].splitlines()[0] for process in both)
        assert output[0].startswith("2 of 2 members queued") and output[1].startswith("nothing to queue")
        until(call, "held", {"0": "queued", "4": "queued"})
        experiment = checkout / STUBBED
        before = experiment.read_text()
        experiment.write_text(before.replace("original", "edited"))
        question(checkout, "held", "[0, 4]", ", optim.ema=0.5")
    finally:
        cluster("scontrol", "update", "PartitionName=main", "State=UP")
    result = until(call, "held", {"0": "done", "4": "done"})
    experiment.write_text(before)
    assert [attempts(result[seed]) for seed in "04"] == [["original 5 1"]] * 2


def test_a_requeued_member_goes_on_in_its_folder(call, checkout, cluster):
    question(checkout, "again", "[3, 0]")
    call("ragaf_exp.sweep", "submit", "again", "launcher=slurm")
    result = until(call, "again", {"3": "running", "0": "done"})
    cluster("scontrol", "requeue", result["3"]["job"])
    until(call, "again", {"3": "requeued"})
    end = time.monotonic() + PATIENCE  # SLURM starts it in 6 s; made to sooner, it may take the credential for the old one
    while len(attempts(result["3"])) < 2 and time.monotonic() < end:
        time.sleep(1)
    assert len(attempts(result["3"])) == 2 and len(attempts(result["0"])) == 1
    call("ragaf_exp.sweep", "cancel", "runs/again")


def test_hydras_own_submitit_launcher(call, checkout):
    words = ["name=own", "fusion=none", "seed=0,4", "cluster.memory_gb=1", "hydra/launcher=submitit_slurm"]
    ended = call("ragaf_exp.run", "-m", *words)
    assert ended.returncode == 0, ended.stderr
    runs = sorted((checkout / "runs" / "own").glob("*/status.json"))
    assert [json.loads(path.read_text())["state"] for path in runs] == ["done", "done"]


def test_commands_behind_a_banner_and_odd_names(call, checkout, cluster, tmp_path, monkeypatch):
    """Commands wrapped as sites do; quotes, spaces, signs and letters in the sweep's name and the folder of runs."""
    for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
        real = cluster("which", name).stdout.strip()
        (tmp_path / name).write_text(f'#!/bin/sh\necho "Welcome | 17 nodes"\nexec {real} "$@"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setitem(cluster.environment, "PATH", f"{tmp_path}:{os.environ['PATH']}")
    odd = 'größe, 50% it\'s "x" #1'
    options = "cluster.memory_gb=0, \"cluster.extra=['--mem-per-cpu=100M']\", cluster.cpus=1, optim.warmup=5"
    (checkout / "sweeps" / "odd.yaml").write_text(f"name: '{odd.replace(chr(39), 2 * chr(39))}'\n"
                                                  f"overrides: [{options}]\ngrid: {{seed: [0, 1, 3]}}\n")  # fmt: skip
    quoted = "runs='my runs, 写真%A'"
    sent = call("ragaf_exp.sweep", "submit", "odd", "launcher=slurm", quoted)
    assert sent.returncode == 0 and "3 of 3" in sent.stdout, sent.stderr
    home = checkout / "my runs, 写真%A" / odd
    end = time.monotonic() + PATIENCE
    while True:
        members = json.loads(call("ragaf_exp.sweep", "status", home, "format=json").stdout)["members"]
        states = {m["differs"]["seed"]: m["state"] for m in members}
        if states == {"0": "done", "1": "failed", "3": "running"}:
            break
        assert time.monotonic() < end, members
        time.sleep(1)
    job = json.loads((home / ".sweep" / "jobs" / "1.json").read_text())["job"]
    logs = {path.name for path in (home / ".sweep" / "logs").iterdir()}
    assert job.isdigit() and logs == {f"{job}_{i}.log" for i in range(3)}
    assert "MinMemoryCPU=100M" in cluster("scontrol", "show", "job", "-o", f"{job}_2").stdout
    assert call("ragaf_exp.sweep", "cancel", home).stdout.startswith("cancelled 1 members")
    refused = call("ragaf_exp.sweep", "submit", "odd", "launcher=slurm", "name=refused", "cluster.partition=none")
    assert refused.returncode == 2 and "invalid partition" in refused.stderr
    assert call("ragaf_exp.sweep", "status", "runs/refused").returncode == 2
