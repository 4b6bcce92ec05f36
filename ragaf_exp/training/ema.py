"""Exponential moving average of the weights, which sampling uses; on the device, in main memory, or none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ragaf_exp.runs.signals import STOP


class Ema:
    """decay: of the average at the end; it starts lower, min(decay, (1 + n) / (10 + n)) after n updates.

    place: where the average lies; off: there is none, and `model` is the trained model itself. Parameters that are not
    trained are shared with the trained model, not copied.
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
        """Each averaged weight and the trained one."""
        return self._pairs

    def to(self, device: torch.device) -> Ema:
        """The average beside the model that is trained on `device`, unless it has a place of its own."""
        if self.place == "device":
            self.model.to(device)
        return self

    @torch.no_grad()
    def update(self, step: int) -> None:
        """One update after optimizer step `step`, counted from 0."""
        if self.place == "off":
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        means = self.means()
        values = [value.to(mean.device) for mean, value in self.pairs]
        torch._foreach_lerp_(means, values, 1 - decay)

    def means(self) -> list[torch.Tensor]:
        """What `update` changes."""
        return [mean for mean, _ in self.pairs]

    def gather(self) -> None:
        """Make `model` the average of now; all processes that share a run call it together."""

    def scatter(self) -> None:
        """Go on from what `model` has been given."""

    @contextmanager
    def serving(self) -> Iterator[nn.Module]:
        """The averaged model in evaluation mode, on the trained model's device.

        An average in main memory changes places with the trained weights meanwhile: no copy more on the device.
        """
        if self.place == "device":
            yield self.model.eval()
            return
        training = self.trained.training
        with STOP.deferred():  # a signal in the middle of a swap would leave a mixture of both
            self._swap()
            try:
                with STOP.deferred(only=False):
                    yield self.trained.eval()
            finally:
                self._swap()
                self.trained.train(training)

    def finish(self, device: torch.device) -> nn.Module:
        """The averaged model on a device, once training is over."""
        return self.model.requires_grad_(False).eval().to(device)

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, value in self.pairs if self.place == "cpu" else ():
            held = value.to(mean.device, copy=True)
            value.copy_(mean)
            mean.copy_(held)
