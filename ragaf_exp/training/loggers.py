"""Loggers (config group `logger`), beside metrics.jsonl, which is always written."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import make_folder


class Silent:
    """No logger besides metrics.jsonl."""

    def open(self, folder: Path, config: dict) -> None:
        """Start logging for a run folder."""

    def log(self, stage: str, step: int, values: dict[str, float]) -> None:
        """values: figures of a step, by name."""

    def close(self) -> None:
        """Flush what is held back."""


class TensorBoard(Silent):
    """Event files in the run folder's tensorboard/."""

    def open(self, folder: Path, config: dict) -> None:
        from torch.utils.tensorboard import SummaryWriter  # seconds to import, and not every run logs so

        self.writer = SummaryWriter(str(make_folder(folder / "tensorboard")))

    def log(self, stage: str, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{stage}/{name}", value, step)

    def close(self) -> None:
        self.writer.close()


class Wandb(Silent):
    """Weights & Biases. project: where runs go. mode: online or offline."""

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
        self.run.log({f"{stage}/{name}": value for name, value in values.items()} | {f"{stage}/step": step})

    def close(self) -> None:
        self.run.finish()
