"""Runs the studio's server until it is interrupted."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping
from ragaf_exp.studio.app import Server
from ragaf_exp.studio.guard import LOOPBACK, access_for
from ragaf_exp.studio.jobs import Jobs
from ragaf_exp.studio.worker import Worker

log = logging.getLogger(__name__)
ENDING_S = 0.7  # time that a step may take to end after Ctrl+C
STATUS_SCHEMA = 1


def serve(args: dict[str, Any]) -> None:
    """Serve until Ctrl+C.

    Args:
        args: The checked arguments of the command line.

    Raises:
        UserError: The run can't be loaded, or the address can't be listened at.
    """
    run = Path(args["run"])
    check_run(run)
    listening = listen(args["host"], args["port"])
    port = listening.getsockname()[1]
    out, runs = (Path(args[key]) if key in args else None for key in ("out", "runs"))
    worker = Worker(run, Jobs(args["queue"]), out, runs)
    app = Server(worker).app(access_for(args["host"], port, args["token"], args["origin"]))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, server_header=False)
    server = uvicorn.Server(config)
    worker.failed = lambda: setattr(server, "should_exit", True)
    worker.start()
    announce(args, port)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    _end(worker)


def check_run(run: Path) -> None:
    """Check what can be checked quickly. Raises UserError for a missing or untrained run."""
    if not run.is_dir():
        raise UserError(f"run={run}: no such run folder; runs/latest is the newest run")
    if not read_mapping(run / "status.json", STATUS_SCHEMA).get("trained"):
        raise UserError(f"run={run}: unfinished; run its training command again to continue it")


def listen(host: str, port: int) -> socket.socket:
    """Open the server's socket. Raises UserError where the address is in use or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # now, so that the address can be opened as soon as it is printed
    except (OSError, OverflowError) as error:
        listening.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise UserError(f"port={port}: in use, perhaps by another studio; give port=0 for any free one") from error
        raise UserError(f"host={host} port={port}: can't be listened at ({error}); leave out host=") from error
    return listening


def announce(args: dict[str, Any], port: int) -> None:
    """Print the address, and open it in the browser."""
    host = args["host"]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    address = args["origin"] or f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
    link = f"{address}/" + (f"#token={args['token']}" if args["token"] else "")
    print(f"studio  {link}", flush=True)
    if host not in LOOPBACK:
        log.warning("host=%s: everyone on the network who knows this address with its token can use the studio", host)
    if args["open"] == "true":
        threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()


def _end(worker: Worker) -> None:
    """Stop the worker; within a second even where a step takes longer."""
    ended = worker.close(ENDING_S)
    if worker.error is not None:
        raise worker.error
    print("studio  ended" if ended else "studio  ended within a step", flush=True)
    sys.stderr.flush()
    os._exit(0)  # at once: taking PyTorch apart takes seconds, and no file is open
