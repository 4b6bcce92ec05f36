"""What the sampler needs of a network, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from ragaf_exp.core.types import Batch


class Output(Protocol):
    """A denoiser's output."""

    @property
    def value(self) -> Tensor | None:
        """(B,C,h,w), of the process's prediction type."""


def prediction_of(output: Output) -> Tensor:
    """The prediction of a denoiser that was given latents."""
    assert output.value is not None, "only a pass without latents has no prediction"
    return output.value


class Denoiser(Protocol):
    """A conditional denoiser D(x_t, t, c)."""

    def condition(self, batch: Batch, keep: Mapping[str, Tensor] = ..., /) -> Any:
        """Encode the conditions of a batch once; keep: condition -> (B,) bool, False drops it for an item."""

    def with_coarse(self, conditioning: Any, coarse: Tensor | None) -> Any:
        """The conditioning with stage 1's latent (B,C,h,w), where the network takes it as an input."""

    def denoise(self, x_t: Tensor, t: Tensor, c: Any) -> Output:
        """x_t (B,C,h,w), timesteps t (B,), conditioning c -> prediction."""
