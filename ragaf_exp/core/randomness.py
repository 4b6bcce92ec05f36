"""Randomness as a function of what it is for, not of generator state: the ground of bit-exact resume."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed for a purpose, the same in every process and on every machine."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A CPU generator for a purpose: its numbers do not depend on the device that uses them."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def item_noise(seed: int, purpose: str, keys: list[str], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise (B, *shape), each row a function of its item's key, not of the batch it is in."""
    return torch.stack([torch.randn(shape, generator=generator(seed, purpose, key)) for key in keys])
