"""Processes that share a run: joined as SLURM's tasks or as torchrun's, agreeing, and one of them first."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ragaf_exp.core.errors import UserError
from ragaf_exp.distributed import launch
from ragaf_exp.distributed.launch import agree_on_stop, first_host, init_process_group, is_main_process, step_name

pytestmark = pytest.mark.process

PROCESS = """
import json, os, sys, time
from pathlib import Path
import torch
from ragaf_exp.distributed import launch

place = Path(sys.argv[1])
launch.init_process_group(place, "cpu")
rank = torch.distributed.get_rank()
with launch.main_process_first():
    if launch.is_main_process():
        time.sleep(0.3)
        (place / "made").touch()
    there = (place / "made").exists()
heard = [launch.agree_on_stop("SIGUSR1" if rank == 1 else None), launch.agree_on_stop(None)]
mean = launch.mean(torch.tensor([rank + 1.0])).tolist()
result = {"there": there, "heard": heard, "leads": launch.is_main_process(), "mean": mean}
inodes = {row.split()[9]: row.split()[1] for name in ("tcp", "tcp6") for row in open(f"/proc/net/{name}") if " 0A " in row}
own = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
result["listening"] = [inodes[link[8:-1]] for link in own if link.startswith("socket:[") and link[8:-1] in inodes]
launch.barrier()
launch.destroy_process_group()
(place / f"result{rank}").write_text(json.dumps(result))
"""
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")  # as /proc has them


def started(place: Path, environments: list[dict[str, str]]) -> list[dict]:
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "MASTER_"))}
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, place], env={**bare, "OMP_NUM_THREADS": "1", **environment})
        for environment in environments
    ]
    assert [process.wait(timeout=240) for process in running] == [0] * len(running)
    return [json.loads((place / f"result{rank}").read_text()) for rank in range(len(running))]


def tasks(nodes: int, count: int = 2) -> list[dict[str, str]]:
    shared = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": str(nodes), "SLURM_STEP_NUM_TASKS": str(count),
              "SLURM_STEP_NUM_NODES": str(nodes), "SLURM_STEP_NODELIST": "localhost,elsewhere"}  # fmt: skip
    locals_ = range(count) if nodes == 1 else [0] * count
    named = {} if nodes == 1 else {"GLOO_SOCKET_IFNAME": "lo"}  # a cluster's own network, where there is one
    return [{**shared, **named, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local)}
            for rank, local in zip(range(count), locals_, strict=True)]  # fmt: skip


@pytest.mark.parametrize("nodes", [1, 2])
def test_tasks_of_a_slurm_step(nodes, tmp_path):
    """One node meets by a file, several by the first one's host and a free port; here nothing listens beyond loopback."""
    output = started(tmp_path, tasks(nodes))
    assert [one["leads"] for one in output] == [True, False]
    for one in output:
        assert one["there"] and one["heard"] == ["SIGUSR1", None] and one["mean"] == [1.5]
        assert one["listening"] and all(address.startswith(LOOPBACK) for address in one["listening"])
    assert not list(tmp_path.glob(".rendezvous*"))  # nor is anything left that a later job could read


def test_the_environment_of_torchrun_is_kept(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    output = started(tmp_path, [{**shared, "RANK": str(r), "LOCAL_RANK": str(r)} for r in (0, 1)])
    assert [one["heard"][0] for one in output] == ["SIGUSR1"] * 2


def test_a_single_process_joins_no_group(tmp_path, monkeypatch):
    """A batch script's own process, too, is alone, whatever its job asked for."""
    for key in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    init_process_group(tmp_path, "cpu")
    assert is_main_process() and agree_on_stop("SIGTERM") == "SIGTERM" and agree_on_stop(None) is None


def test_each_start_of_a_step_has_a_different_name(monkeypatch):
    names = set()
    for key in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_LAUNCHER_PORT"):
        monkeypatch.setenv(key, "7")
        names.add(step_name())
    assert len(names) == 4


def test_a_temporary_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(launch.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(UserError, match="set TMPDIR"):
        launch._node_store(2)


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [("vm", "vm"), ("gpu[07-09,12],cpu1", "gpu07"), ("a-1,b", "a-1"), ("rack2n[3]-ib", "rack2n3-ib"), ("n[1,4]", "n1")],
)
def test_the_first_of_a_node_list(nodes, wanted):
    assert first_host(nodes) == wanted
