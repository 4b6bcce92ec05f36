"""A separate folder for a run's metrics, where its own can't be written to: copies of its small files, and new ones."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.safe_files import is_regular, names_in, read_bounded
from ragaf_exp.runs.folder import RunFolder

COPIED = ("config.yaml", "environment.json", "metrics.jsonl", "tokenizer.json", "status.json")


def figures_folder(run: RunFolder, path: Path) -> RunFolder:
    """Create a folder for a run's metrics, which reports and comparisons can read like a run folder.

    Args:
        run: The run, whose checkpoints are read in place.
        path: The folder, created if missing; one with earlier metrics of the same run can be reused.

    Returns:
        The folder, which reads the run's checkpoints.

    Raises:
        UserError: The folder belongs to another run.
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
