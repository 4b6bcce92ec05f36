"""What every text encoder provides: captions to token features, and which characters each token covers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig
from tokenizers import Tokenizer
from torch import Tensor

from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.part import PretrainedModule


class TextEncoder(PretrainedModule, ABC):
    """width: D, of its tokens. max_tokens: longer captions are cut. trained: with the denoiser; else it is frozen."""

    tokenizer: Tokenizer
    width: int
    max_tokens: int
    trained: bool

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of all that decides the tokens of a caption."""

    @staticmethod
    @abstractmethod
    def tokenizer_for(settings: DictConfig, captions: Callable[[], list[str]]) -> Tokenizer:
        """The tokenizer of a new run. settings: config group `text`. captions: of the training split."""

    @staticmethod
    @abstractmethod
    def load(path: Path) -> Tokenizer:
        """The tokenizer in a run folder; ValueError where the file is damaged."""

    @abstractmethod
    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids (B,T) and mask (B,T), False at padding."""

    @abstractmethod
    def token_spans(self, caption: str) -> list[tuple[int, int]]:
        """[start, end) characters of each token; (0,0) for one that stands for no characters."""

    @abstractmethod
    def unknown_words(self, caption: str) -> list[str]:
        """Words of the caption that the tokenizer does not know."""

    def known_part(self, prompt: str) -> tuple[str, list[str]]:
        """Split a region's prompt into what the encoder can use and the words that are left out."""
        return prompt.strip(), []

    @abstractmethod
    def forward(self, captions: list[str], keep: Tensor | None = None) -> Text:
        """captions: B strings. keep (B,) bool: False drops the caption."""
