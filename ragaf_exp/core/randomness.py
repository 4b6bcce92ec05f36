"""Random numbers as a function of a seed and a purpose, not of generator state, which makes resuming bit-exact."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def derive(seed: int, *purpose: object) -> int:
    """Derive a 63-bit seed for a purpose; it is the same in every process and on every machine."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    """Return a CPU generator for a purpose, so that its numbers do not depend on the device that uses them."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def item_noise(seed: int, purpose: str, keys: list[str], shape: tuple[int, ...]) -> Tensor:
    """Sample standard normal noise that depends on each item's key and not on the batch that the item is in.

    Args:
        seed: The run's seed.
        purpose: Name of the use, so that different uses get different noise.
        keys: One key per item, B of them.
        shape: Shape of one item's noise.

    Returns:
        Noise of shape (B, *shape).
    """
    return torch.stack([torch.randn(shape, generator=generator(seed, purpose, key)) for key in keys])
