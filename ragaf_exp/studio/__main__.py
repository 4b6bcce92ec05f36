"""Draw, describe each part, and watch the image form: a page in the browser, served by this machine.

    python -m ragaf_exp.studio [run=DIR] [runs=runs] [port=7860] [open=true|false] [out=DIR]
        [host=127.0.0.1] [origin=https://...] [token=...] [queue=4]

run: the run folder to sample from; by default demo, the network that ships with the package. runs: a folder of runs,
shown as a gallery: figures, grids, attention and curves, also of runs that are being trained. port: 0 = any free one.
open: whether to open the browser. out: every result is written there as well, as `sample` would. host: the address to
listen at; with any other than this machine's own, others on the network who know the token can use the studio. origin:
the address of a proxy in front of it. token: at least 16 characters, by default random; token=none needs no token, on
this machine alone. queue: number of jobs that may wait.

Ctrl+C ends the studio. Example:

    python -m ragaf_exp.studio run=runs/latest
"""

from __future__ import annotations

import importlib.util
import logging
import re
import secrets
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.packaged import DEMO
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.writable import check_folder

ARGUMENTS = {"run": str, "runs": str, "host": str, "port": int, "open": str, "out": str, "token": str, "origin": str,
             "queue": int}  # fmt: skip
DEFAULTS: dict[str, Any] = {"host": "127.0.0.1", "port": 7860, "open": "true", "queue": 4, "token": "", "origin": ""}
RANGES = {"port": (0, 65535), "queue": (1, 100)}
NO_TOKEN = "none"
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
PACKAGES = ("starlette", "uvicorn")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main() -> None:
    """Serve the studio until Ctrl+C."""
    arguments = sys.argv[1:]
    if not any(argument.startswith("run=") for argument in arguments):
        arguments = [f"run={DEMO}", *arguments]
    args = DEFAULTS | parse_args(arguments, ARGUMENTS)
    check(args)
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"studio: needs the package {missing[0]}; pip install 'ragaf_exp[studio]'")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    from ragaf_exp.studio.serve import serve  # needs those packages

    serve(args)


def check(args: dict[str, Any]) -> None:
    """UserError where an argument is invalid; a missing token is made."""
    for key, (low, high) in RANGES.items():
        if not low <= args[key] <= high:
            raise UserError(f"{key}={args[key]}: must be between {low} and {high}")
    if args["open"] not in ("true", "false"):
        raise UserError(f"open={args['open']}: must be true or false")
    if "runs" in args and not Path(args["runs"]).is_dir():
        raise UserError(f"runs={args['runs']}: no such folder")
    if "out" in args:
        check_folder(Path(args["out"]), "out")
    _check_origin(args["origin"])
    args["token"] = _token(args["token"], args["host"], args["origin"])


def _check_origin(origin: str) -> None:
    parts = urlsplit(origin)
    if origin and (parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}"):
        raise UserError(f"origin={origin}: must be as https://studio.example, without a path")


def _token(token: str, host: str, origin: str) -> str:
    """The token that requests must have; "" = none."""
    if token == NO_TOKEN:
        if host not in LOOPBACK or origin:
            raise UserError("token=none: only where the studio listens at this machine alone; leave out token=")
        return ""
    if token and not TOKEN.fullmatch(token):
        raise UserError("token=: must be 16 to 200 letters, digits, _ or -; leave it out for a random one")
    return token or secrets.token_urlsafe(16)


if __name__ == "__main__":
    guarded(main)
