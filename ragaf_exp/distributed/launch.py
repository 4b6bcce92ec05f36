"""The process group of one run: set up from SLURM's or torchrun's environment, with agreement on when to stop."""

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

JOIN_S = 600.0  # timeout until all processes have joined; imports may be slow on a cold file system
SIGNAL_NAMES = (None, "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
TIMEOUT = timedelta(days=2)  # covers another process's validation; the death of a process closes its connections


def init_process_group(folder: Path, device: str) -> None:
    """Join the processes that share this run, if any: those of a SLURM step, torchrun or accelerate launch.

    Args:
        folder: A folder that all of them can access.
        device: auto, cpu or cuda.
    """
    if "RANK" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return
    import torch
    from torch import distributed

    atexit.unregister(distributed.destroy_process_group)  # registered by an earlier run in the same processes
    if distributed.is_initialized():
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    if "RANK" in os.environ:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            distributed.init_process_group(backend, timeout=TIMEOUT)
    else:
        rank, count, store = _slurm(folder, torch.cuda.device_count() if cuda else 0)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
    if cuda and distributed.is_initialized():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def destroy_process_group() -> None:
    """Destroy the process group when this process exits, once the run has ended in all processes.

    Otherwise gloo's threads may outlive what they use, and a successful process ends by SIGABRT (one in twenty did).
    Not to be called after an error in one process: NCCL would wait for the others, which wait for this one.
    """
    if is_distributed():
        from torch import distributed

        atexit.register(distributed.destroy_process_group)


def is_main_process() -> bool:
    """Whether this process is the one that writes: rank 0, or the only process."""
    return int(os.environ.get("WORLD_SIZE", 1)) == 1 or os.environ.get("RANK", "0") == "0"


def barrier() -> None:
    """Wait for all processes that share the run."""
    agree_on_stop(None)


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the body in the main process first; the others wait, and then read its files."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def mean(values: Any) -> Any:
    """Average a tensor over the processes."""
    from torch import distributed

    if not is_distributed():
        return values
    values = values.cpu()
    distributed.all_reduce(values, group=cpu_group())
    return values / distributed.get_world_size()


def is_distributed() -> bool:
    """Whether several processes share this run."""
    from torch import distributed

    return distributed.is_initialized() and distributed.get_world_size() > 1


def _slurm(folder: Path, devices: int) -> tuple[int, int, Any]:
    """Return (rank, processes, store) of this SLURM step, and set the environment variables that libraries read."""
    rank, local = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_LOCALID"])
    count, nodes = int(os.environ["SLURM_STEP_NUM_TASKS"]), int(os.environ.get("SLURM_STEP_NUM_NODES", 1))
    if nodes == 1:  # nothing needs to listen beyond this node
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    local = local % devices if devices else local  # a task may see only its own device
    variables = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": -(-count // nodes)}
    os.environ.update({key: str(value) for key, value in variables.items()})
    return rank, count, _node_store(count) if nodes == 1 else _network_store(folder, rank, count)


def step_name() -> str:
    """Return a unique name of this start of this step of this job."""
    keys = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_LAUNCHER_PORT")
    return "-".join(os.environ.get(key, "0") for key in keys)


def agree_on_stop(signal_name: str | None) -> str | None:
    """Return the stop signal that any of the run's processes has received, the same in all of them; None if none has."""
    if not is_distributed():
        return signal_name
    import torch
    from torch import distributed

    number = torch.tensor([SIGNAL_NAMES.index(signal_name)])
    distributed.all_reduce(number, distributed.ReduceOp.MAX, cpu_group())
    return SIGNAL_NAMES[int(number)]


@lru_cache(maxsize=1)
def cpu_group() -> Any:
    """Return a group for small messages between processes, on CPUs only."""
    from torch import distributed

    return distributed.new_group(backend="gloo", timeout=TIMEOUT)


def _node_store(count: int) -> Any:
    """Store in a file that the processes of one node share, which needs no port."""
    from torch import distributed

    folder = Path(tempfile.gettempdir()) / f"ragaf_exp-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to another user; set TMPDIR to your own folder")
    path = folder / f"rendezvous-{step_name()}"
    if is_main_process():
        atexit.register(path.unlink, missing_ok=True)
    return distributed.FileStore(str(path), count)


def _network_store(folder: Path, rank: int, count: int) -> Any:
    """Store on rank 0's host, at a port that the system assigns; a file in `folder` passes the address to the others."""
    from torch import distributed

    address = folder / f".rendezvous-{step_name()}"
    limit = timedelta(seconds=JOIN_S)
    if rank == 0:
        host = first_host(os.environ["SLURM_STEP_NODELIST"])
        listener = socket.create_server((host, 0))
        store = distributed.TCPStore(host, listener.getsockname()[1], count, True, limit, wait_for_workers=False,
                                     master_listen_fd=listener.detach())  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        write_text(address, f"{host} {store.port}\n")
        atexit.register(address.unlink, missing_ok=True)
        return store
    end = time.monotonic() + JOIN_S
    while not address.exists():
        if time.monotonic() > end:
            raise UserError(f"{address}: the job's first process did not write it within {JOIN_S:g} s; see its log")
        time.sleep(0.2)
    host, port = address.read_text().split()
    return distributed.TCPStore(host, int(port), count, False, limit)


def first_host(nodes: str) -> str:
    """Return the first name of a SLURM node list: gpu[07-09,12],cpu1 -> gpu07."""
    first = re.match(r"([^,\[]+)(?:\[([^],-]+)[^]]*\])?([^,\[]*)", nodes)
    if first is None:
        raise UserError(f"SLURM_STEP_NODELIST={nodes}: not a list of nodes")
    return "".join(part or "" for part in first.groups())
