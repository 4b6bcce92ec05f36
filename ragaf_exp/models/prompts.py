"""Region prompts: texts that single regions attend to instead of the caption.

A prompt is encoded separately. Only its region attends to it; the denoiser does not. The attention mask from regions to
text confines its effect: the same words in the caption might not change that region, or might change others too.

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
    """The text that regions attend to: the caption's tokens, followed by those of the prompts."""

    text: Text  # (B,T+K,D)
    readable: Tensor | None = None  # (B,N,1+T+K) bool: the tokens a region may attend to, null token first; None = all


def with_prompts(encoder: TextEncoder, caption: Text, prompts: list[list[str]], keep: Tensor | None) -> RegionReading:
    """Add the regions' prompts to the captions.

    Words that the encoder does not know are left out. A region whose prompt has no known words attends to the caption.

    Args:
        encoder: Text encoder for the prompts.
        caption: The encoded captions, (B,T,D).
        prompts: B lists of N prompts; "" = the region attends to the caption.
        keep: (B,) bool, False drops an item's prompts together with its caption; None drops none.

    Returns:
        Captions and prompts, (B,T+K,D), and which tokens each region may attend to.
    """
    usable = [[encoder.known_part(prompt)[0] if prompt else "" for prompt in row] for row in prompts]
    phrases = list(dict.fromkeys(phrase for row in usable for phrase in row if phrase))
    if not phrases:
        return RegionReading(caption)
    encoded = encoder(phrases)
    own = [[i for i, is_token in enumerate(row) if is_token][encoder.leading :] for row in encoded.mask.tolist()]
    positions = dict(zip(phrases, own, strict=True))
    source, owner = (x.to(caption.mask.device) for x in _layout(usable, phrases, positions, encoded.tokens.shape[1]))
    tokens = encoded.tokens.flatten(0, 1)[source] * (owner >= 0)[..., None]  # (B,K,D)
    if keep is not None:
        owner = owner.masked_fill(~keep[:, None], -1)
    mask = torch.cat([caption.mask, owner >= 0], 1)
    text = Text(torch.cat([caption.tokens, tokens.to(caption.tokens.dtype)], 1), mask)
    return RegionReading(text, _readable(owner, len(usable[0]), caption.mask.shape[1]))


def _layout(
    prompts: list[list[str]], phrases: list[str], positions: dict[str, list[int]], longest: int
) -> tuple[Tensor, Tensor]:
    """Concatenate the prompts of each item, each without its start token.

    Args:
        prompts: B lists of N phrases; "" = none.
        phrases: The distinct phrases, in the order in which they were encoded.
        positions: Phrase -> positions of its tokens among those of its encoding.
        longest: T, number of positions of each encoding.

    Returns:
        The index (B,K) of each token in the flattened (phrase, token) grid, and its region (B,K), -1 = padding.
    """
    start = {phrase: i * longest for i, phrase in enumerate(phrases)}
    rows = [[(start[phrase] + i, region) for region, phrase in enumerate(row) if phrase for i in positions[phrase]]
            for row in prompts]  # fmt: skip
    width = max(map(len, rows))
    padded = torch.tensor([row + [(0, -1)] * (width - len(row)) for row in rows])  # (B,K,2)
    return padded[..., 0], padded[..., 1]


def _readable(owner: Tensor, regions: int, caption_tokens: int) -> Tensor:
    """Return (B,N,1+T+K) bool: regions with a prompt attend to it alone, others to the null token and the caption."""
    own = owner[:, None] == torch.arange(regions, device=owner.device)[:, None]  # (B,N,K)
    free = ~own.any(-1, keepdim=True)
    return torch.cat([free.expand(-1, -1, 1 + caption_tokens), own], -1)


def outline_map(outline: Tensor, masks: Tensor) -> Tensor:
    """Average `outline` (B,N) over soft masks (B,N,h,w): the factor of the sketch's features per pixel, (B,1,h,w)."""
    return 1 + torch.einsum("bn,bnhw->bhw", outline - 1, masks)[:, None]


def scaled(residuals: dict[str, Tensor], outline: Tensor | None) -> dict[str, Tensor]:
    """Multiply the sketch's residuals by the map of `outline_map`, (B,1,H,W); None leaves them unchanged.

    Residuals of the image are maps (B,C,h,w). Those of tokens outside of it, (B,L,C), have no factor.
    """
    if outline is None:
        return residuals
    maps = {point: x for point, x in residuals.items() if x.ndim == 4}
    pooled = {point: F.adaptive_avg_pool2d(outline, (x.shape[2], x.shape[3])) for point, x in maps.items()}
    return residuals | {point: x * pooled[point].to(x.dtype) for point, x in maps.items()}
