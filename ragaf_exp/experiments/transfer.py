"""Starts the stages of a run from another run, perhaps of another task, in so far as its weights fit (init=RUN).

A file of weights starts the first stage (init=FILE).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from ragaf_exp.config.build import locate
from ragaf_exp.config.stages import chain
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.models.loading.single_file import SUFFIXES, read_file
from ragaf_exp.models.loading.starting import start_from_file
from ragaf_exp.models.loading.transfer import transfer
from ragaf_exp.models.model import Model
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder

log = logging.getLogger(__name__)


def source_file(init: str) -> Path | None:
    """Return the file of weights that init= names; None for a run folder. Raises UserError if there is no such file."""
    path = Path(init).expanduser()
    if path.suffix not in SUFFIXES or path.is_dir():
        return None
    if not path.is_file():
        raise UserError(f"init={init}: no such file; give a file of weights or a run folder")
    return path


class Initialiser:
    """Copies what fits of another run's stage into a new model; nothing where the run has a checkpoint of the stage.

    Args:
        cfg: Config of the run; without `init`, or where `init` provides whole stages, nothing is copied.
        folder: The run folder.
    """

    def __init__(self, cfg: DictConfig, folder: RunFolder):
        self.cfg, self.folder = cfg, folder
        first = chain(cfg)[0].name
        self.active = cfg.init is not None and first in cfg.stage.run
        if self.active and cfg.study.share:
            raise UserError("init=: not with study.share=true, whose first stage several runs share; leave one out")
        self.file = source_file(cfg.init) if self.active else None
        if self.active and load_newest(folder.checkpoints, first, parts=()) is None:
            read_file(self.file, f"init={cfg.init}") if self.file else self._other()  # reports a wrong one before any work

    def __call__(self, stage: str, model: Model, earlier: Mapping[str, Tensor] | None = None) -> None:
        """Initialise the model of a stage.

        Args:
            stage: Name of the stage.
            model: The model, changed in place.
            earlier: State of the stage that it starts from, whose weights stay; None for the first stage.

        Raises:
            UserError: The other run is missing, or has no checkpoint of its first stage.
        """
        if not self.active or load_newest(self.folder.checkpoints, stage, parts=()) is not None:
            return
        if self.file is not None:
            if earlier is None:
                taken = start_from_file(model, self.file, f"init={self.cfg.init}")
                log.info("stage %s: init=%s: %s", stage, self.cfg.init, taken)
            return
        other = self._other()
        checkpoint = load_newest(other.checkpoints, stage, parts=("ema",))
        if checkpoint is None and earlier is None:
            raise UserError(f"init={self.cfg.init}: has no intact checkpoint of stage {stage}; train it first")
        if checkpoint is None:
            log.info("stage %s: init=%s has no such stage; its own part starts from new weights", stage, self.cfg.init)
            return
        fixed = set(earlier or ())
        result = transfer(model, checkpoint.ema, self._rows(model, other), fixed)
        log.info("stage %s: init=%s: %s", stage, self.cfg.init, result)

    def _other(self) -> RunFolder:
        return RunFolder.read(self.cfg.init, finished=False)[0]

    def _rows(self, model: Model, other: RunFolder) -> dict[str, list[tuple[int, int]]]:
        """Rows of the table of token embeddings that are of the same token in both runs."""
        text = model.text
        if not text.token_table or not is_regular(other.tokenizer):
            return {}
        kind = locate(self.cfg.text._target_, "text")
        theirs = kind.load(other.tokenizer).get_vocab()
        pairs = [(row, theirs[token]) for token, row in text.tokenizer.get_vocab().items() if token in theirs]
        return {f"text.{text.token_table}": pairs}
