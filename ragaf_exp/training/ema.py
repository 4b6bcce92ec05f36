"""Exponential moving average of the weights, which sampling uses. It is on the device, in main memory, or disabled."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ragaf_exp.runs.signals import STOP


class Ema:
    """The averaged model. Frozen parameters are shared with the trained model.

    Args:
        model: The trained model.
        decay: Final decay; after n updates it is min(decay, (1 + n) / (10 + n)).
        place: device, cpu (main memory) or off. With off, `Ema.model` is the trained model itself.
    """

    def __init__(self, model: nn.Module, decay: float, place: str = "device"):
        self.decay, self.place, self.trained = decay, place, model
        self.model = model
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        if place == "off":
            return
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.model = copy.deepcopy(model, dict(shared)).requires_grad_(False).eval()
        both = zip(self.model.parameters(), model.parameters(), strict=True)
        self._pairs = [(mean, value) for mean, value in both if mean is not value]

    @property
    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs of averaged and trained weights."""
        return self._pairs

    def to(self, device: torch.device) -> Ema:
        """Move the average to the device of the trained model, unless it is in main memory or disabled."""
        if self.place == "device":
            self.model.to(device)
        return self

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after optimizer step `step`, counted from 0."""
        if self.place == "off":
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        means = self.means()
        values = [value.to(mean.device) for mean, value in self.pairs]
        torch._foreach_lerp_(means, values, 1 - decay)

    def means(self) -> list[torch.Tensor]:
        """The tensors that `update` changes."""
        return [mean for mean, _ in self.pairs]

    def gather(self) -> None:
        """Update `model` from the shards, if the average is sharded. All processes of a run call it together."""

    def scatter(self) -> None:
        """Update the shards from `model`, if the average is sharded. Call it after loading weights into `model`."""

    @contextmanager
    def serving(self) -> Iterator[nn.Module]:
        """Provide the averaged model in evaluation mode, on the trained model's device.

        An average in main memory is swapped with the trained weights meanwhile, which needs no further device memory.
        """
        if self.place == "device":
            yield self.model.eval()
            return
        training = self.trained.training
        with STOP.deferred():  # a signal during a swap would leave a mixture of both
            self._swap()
            try:
                with STOP.deferred(only=False):
                    yield self.trained.eval()
            finally:
                self._swap()
                self.trained.train(training)

    def finish(self, device: torch.device) -> nn.Module:
        """Move the averaged model to a device after the last step."""
        return self.model.requires_grad_(False).eval().to(device)

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, value in self.pairs if self.place == "cpu" else ():
            trained = value.to(mean.device, copy=True)
            value.copy_(mean)
            mean.copy_(trained)
