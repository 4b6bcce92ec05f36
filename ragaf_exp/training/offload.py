"""Offloads networks that training steps do not use: stage 1's model in stage 2, and encoders whose outputs are cached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class OffloadedModules:
    """Networks in main memory that are moved to a device when needed.

    Args:
        networks: The networks to offload.
        device: The device of training.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device):
        self.networks, self.device = networks, device
        self._offload()

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Move the networks to the device for this block, as validation needs them."""
        try:
            for network in self.networks:
                network.to(self.device)
            yield
        finally:
            self._offload()

    def _offload(self) -> None:
        for network in self.networks:
            network.to("cpu")
