"""Region prompts: texts that single regions read instead of the caption.

A prompt is encoded alone and only its region reads it; the denoiser does not. The mask on the attention of regions to
text is what confines it: the same words in the caption would change nothing there, or change other regions too.

Shapes: B batch, N regions, T tokens of the captions, K tokens of an item's prompts, D text width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.text.base import TextEncoder


@dataclass(frozen=True)
class RegionReading:
    """The text that regions read: the caption's tokens, then those of the prompts."""

    text: Text  # (B,T+K,D)
    readable: Tensor | None = None  # (B,N,1+T+K) bool: the tokens that a region may read, the null token first; None: all


def with_prompts(encoder: TextEncoder, caption: Text, prompts: list[list[str]], keep: Tensor | None) -> RegionReading:
    """Add the regions' prompts to the captions.

    Words that the encoder does not know are left out; a region whose prompt has no other reads the caption.

    Args:
        encoder: Encodes the prompts.
        caption: The encoded captions, (B,T,D).
        prompts: B lists of N prompts; "" = the region reads the caption.
        keep: (B,) bool, False drops an item's prompts together with its caption; None drops none.
    """
    usable = [[encoder.known_part(prompt)[0] if prompt else "" for prompt in row] for row in prompts]
    phrases = list(dict.fromkeys(phrase for row in usable for phrase in row if phrase))
    if not phrases:
        return RegionReading(caption)
    encoded = encoder(phrases)
    lengths = dict(zip(phrases, encoded.mask.sum(1).tolist(), strict=True))
    source, owner = (x.to(caption.mask.device) for x in _layout(usable, phrases, lengths, encoded.tokens.shape[1]))
    tokens = encoded.tokens.flatten(0, 1)[source] * (owner >= 0)[..., None]  # (B,K,D)
    if keep is not None:
        owner = owner.masked_fill(~keep[:, None], -1)
    mask = torch.cat([caption.mask, owner >= 0], 1)
    text = Text(torch.cat([caption.tokens, tokens.to(caption.tokens.dtype)], 1), mask)
    return RegionReading(text, _readable(owner, len(usable[0]), caption.mask.shape[1]))


def _layout(prompts: list[list[str]], phrases: list[str], lengths: dict[str, int], longest: int) -> tuple[Tensor, Tensor]:
    """Lay out the prompts of each item one after the other, each without the token that opens it.

    Returns:
        The index (B,K) of each token among the phrases' tokens, (phrase, token) flattened, and the region (B,K) that
        it belongs to, -1 = padding.
    """
    start = {phrase: i * longest for i, phrase in enumerate(phrases)}
    rows = [[(start[phrase] + i, region) for region, phrase in enumerate(row) if phrase for i in range(1, lengths[phrase])]
            for row in prompts]  # fmt: skip
    width = max(map(len, rows))
    padded = torch.tensor([row + [(0, -1)] * (width - len(row)) for row in rows])  # (B,K,2)
    return padded[..., 0], padded[..., 1]


def _readable(owner: Tensor, regions: int, caption_tokens: int) -> Tensor:
    """(B,N,1+T+K) bool: a region with a prompt reads it alone, any other the null token and the caption."""
    own = owner[:, None] == torch.arange(regions, device=owner.device)[:, None]  # (B,N,K)
    free = ~own.any(-1, keepdim=True)
    return torch.cat([free.expand(-1, -1, 1 + caption_tokens), own], -1)


def outline_map(outline: Tensor, masks: Tensor) -> Tensor:
    """Factor of the sketch's features at each pixel, (B,1,h,w): `outline` (B,N) averaged over soft masks (B,N,h,w)."""
    return 1 + torch.einsum("bn,bnhw->bhw", outline - 1, masks)[:, None]


def scaled(residuals: dict[str, Tensor], outline: Tensor | None) -> dict[str, Tensor]:
    """Residuals (B,C,h,w) of the sketch, multiplied by the map of `outline_map`, (B,1,H,W); None leaves them unchanged."""
    if outline is None:
        return residuals
    pooled = {point: F.adaptive_avg_pool2d(outline, (x.shape[2], x.shape[3])) for point, x in residuals.items()}
    return {point: x * pooled[point].to(x.dtype) for point, x in residuals.items()}
