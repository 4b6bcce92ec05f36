"""Dummies for data, captions and run folder in a plan, as large as the config allows the real ones to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from ragaf_exp.assembly.model import unit_of
from ragaf_exp.core.types import Batch
from ragaf_exp.data.buckets import Buckets
from ragaf_exp.graph.features import EDGE_FEATURES, NODE_FEATURES
from ragaf_exp.models.model import Model

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


def planned_size(cfg: DictConfig, model: Model) -> tuple[int, int]:
    """Height and width of the largest images that a run trains on, in pixels; with buckets those of the largest bucket."""
    if not cfg.data.get("buckets"):
        return cfg.data.size, cfg.data.get("width") or cfg.data.size
    buckets = Buckets(cfg.data.size)
    buckets.set_unit(unit_of(cfg, model))
    return buckets.largest()


def largest_batch(items: int, size: int, regions: int, maps: Mapping[str, int] = NO_MAPS, width: int = 0) -> Batch:
    """A batch of zeros with the largest number of regions.

    Args:
        items: The batch size.
        size: The height of the images, in pixels.
        regions: The number of regions of every item.
        maps: Channels of a task's further conditions, by name.
        width: The width of the images, in pixels; 0 = the height.

    Returns:
        A batch on the default device.
    """
    height, width = size, width or size
    return Batch(
        keys=[f"item {i}" for i in range(items)], captions=["caption"] * items,
        image=torch.zeros(items, 3, height, width), sketch=torch.zeros(items, 1, height, width),
        labels=torch.zeros(items, height, width, dtype=torch.int64),
        nodes=torch.zeros(items, regions, len(NODE_FEATURES)),
        node_mask=torch.ones(items, regions, dtype=torch.bool),
        edges=torch.zeros(items, regions, regions, len(EDGE_FEATURES)),
        edge_mask=torch.ones(items, regions, regions, dtype=torch.bool),
        conditions={name: torch.zeros(items, channels, height, width) for name, channels in maps.items()},
    )  # fmt: skip
