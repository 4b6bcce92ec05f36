"""The interface that the sampler needs of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from ragaf_exp.core.types import Batch


class Output(Protocol):
    """The output of a denoiser."""

    @property
    def value(self) -> Tensor | None:
        """(B,C,h,w), in the prediction type of the process."""


def prediction_of(output: Output) -> Tensor:
    """The prediction in the output of a pass with latents."""
    assert output.value is not None, "a pass without latents has no prediction"
    return output.value


class Denoiser(Protocol):
    """A conditional denoiser D(x_t, t, c)."""

    def condition(self, batch: Batch, keep: Mapping[str, Tensor] = ..., /) -> Any:
        """Encode the conditions of a batch. keep: condition -> (B,) bool, where False drops it for an item."""

    def with_start(self, conditioning: Any, start: Tensor | None) -> Any:
        """Add stage 1's latent (B,C,h,w) to the conditioning, if the network takes it as an input."""

    def denoise(self, x_t: Tensor, t: Tensor, c: Any) -> Output:
        """Predict from noised latents.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).
            c: The conditioning returned by `condition`.

        Returns:
            The output with the prediction.
        """
