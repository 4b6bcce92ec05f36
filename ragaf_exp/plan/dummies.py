"""Dummies for data, captions and run folder in a plan, as large as the config allows the real ones to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ragaf_exp.core.types import Batch
from ragaf_exp.graph.features import EDGE_FEATURES, NODE_FEATURES

NO_MAPS: Mapping[str, int] = {}


@dataclass(frozen=True)
class Encoding:
    """An encoded caption, like tokenizers.Encoding."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    word_ids: list[int]


class DummyTokenizer:
    """A tokenizer that encodes every caption as `length` tokens. vocabulary: the size of the vocabulary."""

    def __init__(self, vocabulary: int, length: int):
        self.vocabulary, self.encoding = vocabulary, Encoding([0] * length, [(0, 1)] * length, [0] * length)

    def get_vocab_size(self) -> int:
        return self.vocabulary

    def token_to_id(self, token: str) -> int:
        return 0

    def to_str(self) -> str:
        """A vocabulary that lacks nothing, so that no caption has unknown words."""
        return '{"model": {}}'

    def encode(self, caption: str) -> Encoding:
        return self.encoding


class NullRunFolder:
    """A run folder that writes nothing to disk."""

    path = checkpoints = samples = None

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def status(self, state: str, **facts: Any) -> None:
        """Discard the status."""


def largest_batch(items: int, size: int, regions: int, maps: Mapping[str, int] = NO_MAPS) -> Batch:
    """A batch of zeros with the largest number of regions.

    Args:
        items: The batch size.
        size: The height and width of the images, in pixels.
        regions: The number of regions of every item.
        maps: Channels of a task's further conditions, by name.

    Returns:
        A batch on the default device.
    """
    return Batch(
        keys=[f"item {i}" for i in range(items)], captions=["caption"] * items,
        image=torch.zeros(items, 3, size, size), sketch=torch.zeros(items, 1, size, size),
        labels=torch.zeros(items, size, size, dtype=torch.int64),
        nodes=torch.zeros(items, regions, len(NODE_FEATURES)),
        node_mask=torch.ones(items, regions, dtype=torch.bool),
        edges=torch.zeros(items, regions, regions, len(EDGE_FEATURES)),
        edge_mask=torch.ones(items, regions, regions, dtype=torch.bool),
        conditions={name: torch.zeros(items, channels, size, size) for name, channels in maps.items()},
    )  # fmt: skip
