"""The data types that carry conditions from the encoders to the denoiser.

Shapes: B batch, T text tokens, D text width, N regions, R region width, h w latent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ragaf_exp.core.tensors import MASK_VALUE


@dataclass(frozen=True)
class Appended:
    """Region tokens behind those of the text, for all layers that attend to the text, or for one of them."""

    tokens: Tensor  # (B,N,D)
    mask: Tensor  # (B,N) bool, True = a region
    gates: Tensor  # (layers,), of one layer (); 0 = the layer reads the text alone, 1 = text and regions in one softmax

    def at(self, layer: int) -> Appended:
        """Return the tokens with the gate of one layer."""
        return replace(self, gates=self.gates[layer])

    @property
    def bias(self) -> Tensor:
        """The padding mask as an additive bias, (B,1,1,N) float32."""
        return torch.zeros_like(self.mask, dtype=torch.float32).masked_fill(~self.mask, MASK_VALUE)[:, None, None]


@dataclass(frozen=True)
class Text:
    """Encoded captions."""

    tokens: Tensor  # (B,T,D)
    mask: Tensor  # (B,T) bool, True = a token; the first, the start token, is always True
    attended: Tensor | None = None  # (B,T) bool: the tokens that the denoiser attends to, if not those of `mask`
    pooled: Tensor | None = None  # (B,P) a vector of the whole caption, from encoders that have one
    # (B,M,D) tokens of an edited image, in front of the caption's, from encoders that read it; they have no words
    image: Tensor | None = None
    appended: Appended | None = None  # region tokens, in the denoiser's text alone (injection=appended)

    def dropped(self, keep: Tensor | None, empty: Text) -> Text:
        """Replace captions by the empty one, `empty` (1,T,D) or (B,T,D), where keep (B,) is False.

        The tokens of an image remain. They do not depend on the caption, which the encoder reads after the image.
        """
        if keep is None:
            return self
        has = keep[:, None]
        attended = pooled = None
        if self.attended is not None and empty.attended is not None:
            attended = torch.where(has, self.attended, empty.attended)
        if self.pooled is not None and empty.pooled is not None:
            pooled = torch.where(has, self.pooled, empty.pooled)
        tokens = torch.where(has[..., None], self.tokens, empty.tokens)
        return Text(tokens, torch.where(has, self.mask, empty.mask), attended, pooled, self.image)

    def followed_by(self, tokens: Tensor) -> Text:
        """Append tokens (B,n,D)."""
        true = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        attended = None if self.attended is None else torch.cat([self.attended, true], dim=1)
        joined = torch.cat([self.tokens, tokens.to(self.tokens.dtype)], dim=1)
        return Text(joined, torch.cat([self.mask, true], dim=1), attended, self.pooled, self.image)

    def trimmed(self) -> Text:
        """Cut off the last positions that the denoiser attends to in no caption of the batch."""
        visible = self.mask if self.attended is None else self.attended
        if visible.is_meta:  # no values: the largest text is planned
            return self
        length = int(visible.any(0).nonzero().max()) + 1
        attended = None if self.attended is None else self.attended[:, :length]
        return Text(self.tokens[:, :length], self.mask[:, :length], attended, self.pooled, self.image)

    def after_image(self) -> tuple[Tensor, Tensor]:
        """Return the tokens (B,M+T,D) of the edited image, if there are any, and of the caption, and their mask (B,M+T)."""
        if self.image is None:
            return self.tokens, self.mask
        shown = torch.ones(self.image.shape[:2], dtype=torch.bool, device=self.mask.device)
        return torch.cat([self.image.to(self.tokens.dtype), self.tokens], dim=1), torch.cat([shown, self.mask], dim=1)

    def each(self, change: Callable[[Tensor], Tensor]) -> Text:
        """Apply a function to every tensor."""
        attended, pooled, image = (None if x is None else change(x) for x in (self.attended, self.pooled, self.image))
        return Text(change(self.tokens), change(self.mask), attended, pooled, image)


@dataclass(frozen=True)
class RegionState:
    """Encoded regions, before they depend on the timestep (stage 2)."""

    structure: Tensor  # (B,N,R) geometry and hint features after graph attention
    semantics: Tensor  # (B,N,R) caption features that the region attends to
    region_text: Tensor  # (B,N,T) attention of a region to the tokens; sums to at most 1, the rest is on the null token
    region_mask: Tensor  # (B,N) bool, True = a region, False = padding
    soft_masks: dict[tuple[int, int], Tensor]  # (h,w) -> (B,N,h,w), the region's share of each pixel
    importance: Tensor | None = None  # (B,N) guidance scale of each region's text; None = 1 for all
    period: Tensor | None = None  # (B,N,2) shares of the noise schedule between which a region reads text; None = always
    silent: Tensor | None = None  # (B,N,R) semantics without any text, if importance or period is given
    background: Tensor | None = None  # (B,N): 1 = the background, 0 = another region; None = no region is
    phrase_tokens: Tensor | None = None  # (B,N,T) bool: the tokens of each region's own phrase, if the batch has spans
    # injection point -> (h,w), for image sizes other than the one that the networks were traced for
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def importance_at(self, t: Tensor) -> Tensor:
        """Guidance scale of each region's text (B,N) at timesteps t (B,) in [0,1], 1 = pure noise."""
        scale = torch.ones_like(self.structure[..., 0]) if self.importance is None else self.importance
        if self.period is None:
            return scale
        start, end = self.period.unbind(-1)
        passed = 1 - t[:, None]  # share of the noise schedule
        return scale * ((start <= passed) & (passed <= end))


@dataclass(frozen=True)
class Conditioning:
    """All inputs of the denoiser except x_t and t."""

    text: Text
    hint: dict[str, Tensor]  # injection point -> (B,C,h,w), added to the backbone's features there
    regions: RegionState | None = None  # None in stage 1
    start: Tensor | None = None  # (B,C,h,w) the latent that the stage starts from, if it takes that as an input
    crops: Tensor | None = None  # (B,4) margins cropped from each image, for a model that takes them as an input
    extra: Tensor | None = None  # (B,E,h,w) a task's channels next to x_t
    source: Tensor | None = None  # (B,E',h,w) the edited image, as an editing backbone encodes it, next to x_t
    task_token: Tensor | None = None  # (B,1,D) appended to the caption, if one network is trained on several tasks
    outline: Tensor | None = None  # (B,1,H,W) factor of the hint at each pixel; None = 1 everywhere

    @property
    def denoiser_text(self) -> Text:
        """The caption's tokens, followed by the task token."""
        return self.text if self.task_token is None else self.text.followed_by(self.task_token)

    @property
    def region_state(self) -> RegionState:
        """`regions` of a model that has a region path."""
        assert self.regions is not None, "stage 1 has no regions"
        return self.regions
