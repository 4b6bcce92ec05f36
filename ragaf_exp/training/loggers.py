"""Loggers (config group `logger`). metrics.jsonl is always written in addition."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import make_folder


class Silent:
    """Logs nothing; metrics.jsonl alone remains."""

    def open(self, folder: Path, config: dict) -> None:
        """Start logging for a run folder."""

    def log(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Log the metrics of a step.

        Args:
            stage: Name of the stage.
            step: Number of optimizer steps so far.
            values: Metrics by name.
        """

    def close(self) -> None:
        """Flush and close the logger."""


class TensorBoard(Silent):
    """Writes event files to tensorboard/ in the run folder."""

    def open(self, folder: Path, config: dict) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import, and few runs need it

        self.writer = SummaryWriter(str(make_folder(folder / "tensorboard")))

    def log(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Write scalars as `<stage>/<name>`.

        Args:
            stage: Name of the stage.
            step: Number of optimizer steps so far.
            values: Metrics by name.
        """
        for name, value in values.items():
            self.writer.add_scalar(f"{stage}/{name}", value, step)

    def close(self) -> None:
        self.writer.close()


class Wandb(Silent):
    """Logs to Weights & Biases. project: project of the runs. mode: online or offline."""

    def __init__(self, project: str = "ragaf_exp", mode: str = "online"):
        self.project, self.mode = project, mode

    def open(self, folder: Path, config: dict) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError("logger=wandb: the package is missing; pip install wandb, or logger=tensorboard") from error
        make_folder(folder / "wandb")
        name = f"{folder.parent.name}-{folder.name}"
        self.run = wandb.init(project=self.project, mode=self.mode, name=name, id=name, resume="allow",
                              dir=str(folder), config=config)  # fmt: skip

    def log(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Log values as `<stage>/<name>`.

        Args:
            stage: Name of the stage.
            step: Number of optimizer steps so far.
            values: Metrics by name.
        """
        self.run.log({f"{stage}/{name}": value for name, value in values.items()} | {f"{stage}/step": step})

    def close(self) -> None:
        self.run.finish()
