"""Networks that no training step uses, kept in main memory: stage 1's in stage 2, and encoders whose work is on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class OffloadedModules:
    """networks: they rest in main memory, and are on the device while `awake`."""

    def __init__(self, networks: Sequence[nn.Module], device: torch.device):
        self.networks, self.device = networks, device
        self._offload()

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """For validation, which needs them."""
        try:
            for network in self.networks:
                network.to(self.device)
            yield
        finally:
            self._offload()

    def _offload(self) -> None:
        for network in self.networks:
            network.to("cpu")
