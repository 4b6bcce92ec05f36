"""Runs that ship inside the package: `run=demo` names one on every command line, without training anything first."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resources import PACKAGE
from ragaf_exp.core.writable import check_folder

DEMO = "demo"
FOLDER = PACKAGE / "weights"  # of run folders: config, tokenizer, metrics, EMA in float16


def run_path(value: str) -> str:
    """Return the folder that `run=` names: the packaged one for DEMO, otherwise the path itself.

    Raises:
        UserError: This installation lacks the packaged weights.
    """
    if value != DEMO:
        return value
    folder = FOLDER / DEMO
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run={DEMO}: {folder} is missing; install ragaf_exp again, or give a run folder as ./{DEMO}")
    return str(folder)


def check_run(path: Path, advice: str) -> None:
    """Check that a command can write into a run folder, and that it is not a packaged one.

    Args:
        path: The run folder.
        advice: Shown in the error, as "give out=FILE.html".

    Raises:
        UserError: It cannot.
    """
    if path.resolve().is_relative_to(FOLDER.resolve()):
        raise UserError(f"run={path}: ships with the package and is not written to; {advice}")
    check_folder(path, "run", advice)
