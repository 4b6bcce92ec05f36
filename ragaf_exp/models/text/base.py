"""The interface of text encoders: token features of captions, and the characters that each token covers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from omegaconf import DictConfig
from tokenizers import Tokenizer
from torch import Tensor

from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.part import PretrainedModule


class TextEncoder(PretrainedModule, ABC):
    """Base class of text encoders.

    Attributes:
        tokenizer: The tokenizer.
        width: D, channels of a token.
        pooled_width: P, channels of the vector of a whole caption; 0 = the encoder has none.
        leading: Number of tokens before the first word: 1 for a start token.
        max_tokens: Longer captions are truncated to this number of tokens.
        token_table: Name of the parameter with a row for each token of the tokenizer; "" if there is none to transfer.
        trained: Whether the encoder is trained with the denoiser; otherwise it is frozen.
        reads_image: Whether `read` needs the image that the task edits.
    """

    tokenizer: Tokenizer
    width: int
    pooled_width: int = 0
    leading: int = 1
    max_tokens: int
    token_table: ClassVar[str] = ""
    trained: bool
    reads_image: ClassVar[bool] = False

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of everything that determines the tokens of a caption."""

    @staticmethod
    @abstractmethod
    def tokenizer_for(settings: DictConfig, captions: Callable[[], list[str]]) -> Tokenizer:
        """Return the tokenizer of a new run, given the config group `text` and the training captions."""

    @staticmethod
    @abstractmethod
    def load(path: Path) -> Tokenizer:
        """Load the tokenizer of a run folder.

        Raises:
            ValueError: The file is damaged.
        """

    @abstractmethod
    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Return token ids (B,T) and mask (B,T), False at padding."""

    @abstractmethod
    def token_spans(self, caption: str) -> list[tuple[int, int]]:
        """Return the range of characters [start, end) of each token; (0,0) for tokens that cover no characters."""

    @abstractmethod
    def unknown_words(self, caption: str) -> list[str]:
        """Return the words of the caption that the tokenizer does not know."""

    def known_part(self, prompt: str) -> tuple[str, list[str]]:
        """Split a region's prompt into the part that the encoder can use and the words that are left out."""
        return prompt.strip(), []

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Encode on this device while this is open, for an encoder that does nothing else meanwhile."""
        self.to(device)
        yield

    def words(self) -> list[str] | None:
        """Return the words that the training captions contain; None for an encoder that takes any text."""
        return None

    def read(self, captions: list[str], keep: Tensor | None, image: Tensor | None) -> Text:
        """Encode captions together with the images that they edit, if this encoder reads images.

        Args:
            captions: B captions.
            keep: (B,) bool, False drops the caption; None drops none.
            image: (B,3,H,W) in [-1,1]; None without such images.

        Returns:
            The encoded captions.
        """
        return self(captions, keep)

    @abstractmethod
    def forward(self, captions: list[str], keep: Tensor | None = None) -> Text:
        """Encode B captions as tokens (B,T,D). keep (B,) bool: False drops the caption."""
