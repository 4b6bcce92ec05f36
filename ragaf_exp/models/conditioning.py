"""The one typed object that carries conditions from the encoders to the denoiser.

Shapes: B batch, T text tokens, D text width, N regions, R region width, h w latent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Text:
    """Encoded captions."""

    tokens: Tensor  # (B,T,D)
    mask: Tensor  # (B,T) bool, True = a token; the first, which opens every caption, is always there
    seen: Tensor | None = None  # (B,T) bool: what the denoiser attends to, where that is not `mask`

    def dropped(self, keep: Tensor | None, empty: Text) -> Text:
        """These features, and those of the empty caption, `empty` (1,T,D), where keep (B,) is False."""
        if keep is None:
            return self
        kept = keep[:, None]
        seen = None if self.seen is None or empty.seen is None else torch.where(kept, self.seen, empty.seen)
        return Text(torch.where(kept[..., None], self.tokens, empty.tokens), torch.where(kept, self.mask, empty.mask), seen)

    def followed_by(self, tokens: Tensor) -> Text:
        """These features with further tokens (B,n,D) at the end."""
        there = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        seen = None if self.seen is None else torch.cat([self.seen, there], dim=1)
        joined = torch.cat([self.tokens, tokens.to(self.tokens.dtype)], dim=1)
        return Text(joined, torch.cat([self.mask, there], dim=1), seen)

    def each(self, change: Callable[[Tensor], Tensor]) -> Text:
        """With every tensor changed alike."""
        return Text(change(self.tokens), change(self.mask), None if self.seen is None else change(self.seen))


@dataclass(frozen=True)
class RegionState:
    """What the region graph and the text say of each region, before the timestep has its say (stage 2)."""

    structure: Tensor  # (B,N,R) geometry and hint features after graph attention
    semantics: Tensor  # (B,N,R) what the region read in the caption
    region_text: Tensor  # (B,N,T) attention of a region to the tokens; sums to at most 1, the rest is the null token
    region_mask: Tensor  # (B,N) bool
    soft_masks: dict[tuple[int, int], Tensor]  # (h,w) -> (B,N,h,w), share of each pixel
    importance: Tensor | None = None  # (B,N) guidance scale of what each region reads; None = 1 for all
    silent: Tensor | None = None  # (B,N,R) semantics without any text, where importance is given
    # injection point -> (h,w), where images have another size than those that the networks were traced for
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditioning:
    """Everything the denoiser is told besides x_t and t."""

    text: Text
    hint: dict[str, Tensor]  # injection point -> (B,C,h,w), added to the UNet's features there
    regions: RegionState | None = None  # None in stage 1
    coarse: Tensor | None = None  # (B,C,h,w): stage 1's latent, for a stage 2 that sees it
    crops: Tensor | None = None  # (B,4) what is cut off each image, for a model that has it as an input
    extra: Tensor | None = None  # (B,E,h,w): a task's channels next to x_t
    task_token: Tensor | None = None  # (B,1,D), after the caption's, where one network is trained on several tasks
    phrase_tokens: Tensor | None = None  # (B,N,T) bool: the tokens of each region's own phrase, where the batch has spans
    outline: Tensor | None = None  # (B,1,H,W) factor of the hint at each pixel; None = 1 everywhere

    @property
    def denoiser_text(self) -> Text:
        """The caption's tokens, and the task's after them."""
        return self.text if self.task_token is None else self.text.followed_by(self.task_token)

    @property
    def region_state(self) -> RegionState:
        """`regions`, where the model has a region path."""
        assert self.regions is not None, "stage 1 has no regions"
        return self.regions
