"""Shared parts of all command lines: key=value arguments, one-line errors, exit status."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ragaf_exp.config import packaged
from ragaf_exp.config.grammar import refusal
from ragaf_exp.config.paths import expanded, split, unquoted
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.omegaconf_errors import one_line
from ragaf_exp.core.printable import printable

HELP = {"--help", "-h"}
ERRNO_HINTS = {
    errno.EIO: "could not be written; check the device and run the same command again",
    errno.ENOSPC: "no space left on the device; free some and run the same command again",
    errno.EDQUOT: "disk quota exceeded; free some and run the same command again",
    errno.EROFS: "a read-only file system; choose another folder",
    errno.ENOENT: "no such file or folder; check the path",
    errno.EACCES: "permission denied; choose another folder or change its permissions",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another folder",
    errno.EISDIR: "a folder stands where a file is needed; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EFBIG: "larger than files may be here; raise the limit (ulimit -f) or choose another folder",
    errno.EEXIST: "a file stands where a folder is needed; choose another folder",
}


def guarded(main: Callable[[], Any]) -> None:
    """Run a command line. A user's mistake becomes one line on stderr and exit status 2.

    --help prints the docstring of the module that defines `main`.
    """
    if HELP & set(sys.argv[1:]):
        print(inspect.cleandoc(sys.modules[main.__module__].__doc__ or ""))
        return
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # makes Hydra raise errors instead of printing them
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a 4-bit kernel, which nothing here uses
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _fail(explain(error))
    except OSError as error:
        if error.errno not in ERRNO_HINTS:
            raise
        _fail(f"{error.filename2 or error.filename or 'write failed'}: {ERRNO_HINTS[error.errno]}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would only add a traceback
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def explain(error: BaseException) -> str:
    """Describe a user's mistake in one line; config errors are traced to the key at fault."""
    if isinstance(error, UserError):
        return str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return one_line(cause)
        cause = cause.__cause__ or cause.__context__
    return refusal(error) if isinstance(error, HydraException) else " ".join(str(error).split())


PATHS = frozenset((  # arguments that name files or folders: a leading ~ is expanded
    "run", "runs", "out", "images", "reference", "captions", "sketches", "masks", "training", "sketch", "batch",
    "drawings", "folder", "tables", "squeezenet", "edits", "keep", "image", "mask", "object",
))  # fmt: skip

RUNS = frozenset(("run", "runs"))  # arguments that name run folders


def parse_args(argv: Sequence[str], known: dict[str, type]) -> dict[str, Any]:
    """Parse `key=value` arguments and convert each value to its key's type. Raises UserError, naming the known keys."""
    values: dict[str, Any] = {}
    for argument in argv:
        key, equals, value = argument.partition("=")
        if not equals or key not in known:
            raise UserError(f"{argument}: unknown argument; known are {', '.join(k + '=' for k in known)}")
        values[key] = _convert(key, value.strip(), known[key])
    return values


def _convert(key: str, value: str, kind: type) -> Any:
    if kind is list:
        return _items(key, value)
    value = _path(key, unquoted(value)) if key in PATHS else unquoted(value)
    try:
        return kind(value)
    except ValueError as error:
        raise UserError(f"{key}={value}: must be of type {kind.__name__}") from error


def _path(key: str, value: str) -> str:
    """Expand a leading ~, and `demo` to the packaged run where a run is named."""
    return packaged.run_path(expanded(value)) if key in RUNS else expanded(value)


def _items(key: str, value: str) -> list[str]:
    """Split a list, with or without brackets; quotation marks protect commas and outer spaces in an item."""
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    items = [unquoted(item) for item in split(inner) if item]
    return [_path(key, item) for item in items] if key in PATHS else items


def _fail(message: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(2)
