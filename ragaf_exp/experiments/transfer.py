"""Starts the stages of a run from another run, perhaps of another task, in so far as its weights fit (init=RUN)."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from omegaconf import DictConfig
from torch import Tensor

from ragaf_exp.config.build import locate
from ragaf_exp.config.stages import FIRST
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.models.loading.transfer import transfer
from ragaf_exp.models.model import Model
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder

log = logging.getLogger(__name__)


class Initialiser:
    """Copies what fits of another run's stage into a new model; nothing where the run has a checkpoint of the stage.

    Args:
        cfg: Config of the run; without `init`, or where `init` provides a whole stage 1, nothing is copied.
        folder: The run folder.
    """

    def __init__(self, cfg: DictConfig, folder: RunFolder):
        self.cfg, self.folder = cfg, folder
        self.active = cfg.init is not None and FIRST.name in cfg.stage.run
        if self.active and cfg.study.share:
            raise UserError("init=: not with study.share=true, whose stage 1 several runs share; leave one out")
        if self.active and load_newest(folder.checkpoints, FIRST.name, parts=()) is None:
            self._other()  # reports a wrong folder before any work

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
