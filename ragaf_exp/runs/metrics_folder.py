"""A run's figures where its own folder can't be written to: a folder with copies of its small files, and the new ones."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.safe_files import is_regular, names_in, read_bounded
from ragaf_exp.runs.folder import RunFolder

COPIED = ("config.yaml", "environment.json", "metrics.jsonl", "tokenizer.json", "status.json")


def figures_folder(run: RunFolder, path: Path) -> RunFolder:
    """The folder for a run's figures, which reports and comparisons read as they read the run's own.

    Args:
        run: The run, whose checkpoints are read where they are.
        path: The folder, made where it is new; that of earlier figures of the same run may be used again.

    Raises:
        UserError: Where the folder is another run's.
    """
    copy = RunFolder(path.absolute())
    if copy.checkpoints.exists() or _other(run, copy):
        raise UserError(f"out={path}: is a run folder; choose another")
    copy.samples.mkdir(parents=True, exist_ok=True)
    grids = (run.samples / name for name in names_in(run.samples) if name.endswith(".png"))
    for source in (*(run.path / name for name in COPIED), *grids):
        if is_regular(source):
            write_bytes(copy.path / source.relative_to(run.path), read_bounded(source))
    copy.checkpoints, copy.origin = run.checkpoints, run.path
    return copy


def _other(run: RunFolder, copy: RunFolder) -> bool:
    config = copy.path / "config.yaml"
    return config.exists() and config.read_bytes() != (run.path / "config.yaml").read_bytes()
