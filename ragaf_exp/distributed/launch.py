"""The processes that share one run: wired from SLURM's environment, and agreeing on when to stop."""

from __future__ import annotations

import atexit
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_text

JOIN_S = 600.0  # until all have come; their imports may be slow on a cold file system
SIGNAL_NAMES = (None, "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
WORK = timedelta(days=2)  # of waiting for another's validation; one that dies ends its connections, which is noticed


def init_process_group(place: Path, device: str) -> None:
    """Join the processes that share this run, if there are several: a SLURM step's, torchrun's, accelerate launch's.

    place: a folder that all of them see. device: auto, cpu or cuda.
    """
    if "RANK" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return
    import torch
    from torch import distributed

    atexit.unregister(distributed.destroy_process_group)  # of a run before, in the same processes
    if distributed.is_initialized():
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    if "RANK" in os.environ:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            distributed.init_process_group(backend, timeout=WORK)
    else:
        rank, count, store = _slurm(place, torch.cuda.device_count() if cuda else 0)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=WORK)
    if cuda and distributed.is_initialized():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def destroy_process_group() -> None:
    """The run is over in all processes that share it, and their group ends in good order when this process does.

    Else gloo's threads may outlive what they use, and a process that did its work ends by SIGABRT (one in twenty did).
    Not after an error in one process: NCCL would wait for the others, which wait for this one.
    """
    if is_distributed():
        from torch import distributed

        atexit.register(distributed.destroy_process_group)


def is_main_process() -> bool:
    """Whether this process is the one that writes: the first of those that share the run, or the only one."""
    return int(os.environ.get("WORLD_SIZE", 1)) == 1 or os.environ.get("RANK", "0") == "0"


def barrier() -> None:
    """Wait for all processes that share the run."""
    agree_on_stop(None)


@contextmanager
def main_process_first() -> Iterator[None]:
    """What is in here the leader does first, alone; the others find its files."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def mean(values: Any) -> Any:
    """A tensor's mean over the processes."""
    from torch import distributed

    if not is_distributed():
        return values
    values = values.cpu()
    distributed.all_reduce(values, group=cpu_group())
    return values / distributed.get_world_size()


def is_distributed() -> bool:
    """Whether processes share this run."""
    from torch import distributed

    return distributed.is_initialized() and distributed.get_world_size() > 1


def _slurm(place: Path, devices: int) -> tuple[int, int, Any]:
    """(rank, processes, store) of this SLURM step; the environment then says it in the words that libraries read."""
    rank, local = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_LOCALID"])
    count, nodes = int(os.environ["SLURM_STEP_NUM_TASKS"]), int(os.environ.get("SLURM_STEP_NUM_NODES", 1))
    if nodes == 1:  # nothing needs to listen beyond this node
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    local = local % devices if devices else local  # a task may be shown no device but its own
    told = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": -(-count // nodes)}
    os.environ.update({key: str(value) for key, value in told.items()})
    return rank, count, _node_store(count) if nodes == 1 else _network_store(place, rank, count)


def step_name() -> str:
    """This start of this step of this job, which no other has."""
    keys = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_LAUNCHER_PORT")
    return "-".join(os.environ.get(key, "0") for key in keys)


def agree_on_stop(asked: str | None) -> str | None:
    """The signal by which any of the run's processes was asked to stop: the same answer in all of them."""
    if not is_distributed():
        return asked
    import torch
    from torch import distributed

    number = torch.tensor([SIGNAL_NAMES.index(asked)])
    distributed.all_reduce(number, distributed.ReduceOp.MAX, cpu_group())
    return SIGNAL_NAMES[int(number)]


@lru_cache(maxsize=1)
def cpu_group() -> Any:
    """A group for words between processes, which passes devices by."""
    from torch import distributed

    return distributed.new_group(backend="gloo", timeout=WORK)


def _node_store(count: int) -> Any:
    """A file that the processes of one node share: no port to clash over."""
    from torch import distributed

    folder = Path(tempfile.gettempdir()) / f"ragaf_exp-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to another user; set TMPDIR to a folder of your own")
    path = folder / f"rendezvous-{step_name()}"
    if is_main_process():
        atexit.register(path.unlink, missing_ok=True)
    return distributed.FileStore(str(path), count)


def _network_store(place: Path, rank: int, count: int) -> Any:
    """On the first process's host, at a port that the system finds free; where, a file in `place` tells the others."""
    from torch import distributed

    told = place / f".rendezvous-{step_name()}"
    limit = timedelta(seconds=JOIN_S)
    if rank == 0:
        host = first_host(os.environ["SLURM_STEP_NODELIST"])
        listener = socket.create_server((host, 0))
        store = distributed.TCPStore(host, listener.getsockname()[1], count, True, limit, wait_for_workers=False,
                                     master_listen_fd=listener.detach())  # fmt: skip
        place.mkdir(parents=True, exist_ok=True)
        write_text(told, f"{host} {store.port}\n")
        atexit.register(told.unlink, missing_ok=True)
        return store
    end = time.monotonic() + JOIN_S
    while not told.exists():
        if time.monotonic() > end:
            raise UserError(f"{told}: the job's first process did not write it within {JOIN_S:g} s; see its log")
        time.sleep(0.2)
    host, port = told.read_text().split()
    return distributed.TCPStore(host, int(port), count, False, limit)


def first_host(nodes: str) -> str:
    """The first name of a SLURM node list: gpu[07-09,12],cpu1 -> gpu07."""
    first = re.match(r"([^,\[]+)(?:\[([^],-]+)[^]]*\])?([^,\[]*)", nodes)
    if first is None:
        raise UserError(f"SLURM_STEP_NODELIST={nodes}: not a list of nodes")
    return "".join(part or "" for part in first.groups())
