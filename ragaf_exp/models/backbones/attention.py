"""Image-to-text attention with a per-pixel bias (`injection.words`) towards the words of the pixel's region.

diffusers calls these processors in place of its own; they keep its projections and PyTorch's fused attention kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor


@dataclass(frozen=True)
class WordBias:
    """Added to the attention logits of every image-to-text layer: gate x log p(token | pixel)."""

    log_map: dict[int, Tensor]  # h w -> (B,h w,T)
    gates: Tensor  # (layers,)

    def at(self, layer: int, pixels: int) -> Tensor:
        return self.gates[layer] * self.log_map[pixels]

    def padded(self, tokens: int) -> WordBias:
        """Without a bias for this many further tokens at the end."""
        return WordBias({pixels: F.pad(log_map, (0, tokens)) for pixels, log_map in self.log_map.items()}, self.gates)


class BiasedAttention:
    """diffusers attention processor. layer: index among the UNet's cross-attention layers, None for self-attention.

    watch: where set, called with every image-to-text attention (B,h w,T), mean over heads.
    """

    watch: Callable[[Tensor], object] | None = None

    def __init__(self, layer: int | None):
        self.layer = layer

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, word_bias: WordBias | None = None,
    ) -> Tensor:  # fmt: skip
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states  # (B,T,D)
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B,heads,tokens,d)
        bias = self._bias(attention_mask, word_bias, q)
        if self.watch is not None and self.layer is not None:
            logits = (q @ k.transpose(-1, -2)).float() * attn.scale
            self.watch((logits if bias is None else logits + bias).softmax(-1).mean(1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=attn.scale)
        out = out.transpose(1, 2).flatten(-2)  # (B,h w,C)
        return attn.to_out[1](attn.to_out[0](out))

    def _bias(self, mask: Tensor | None, words: WordBias | None, q: Tensor) -> Tensor | None:
        """(B,1,h w,T): expanded in both stages alike, so that the same kernel runs with and without words."""
        if self.layer is None or mask is None:
            return None
        pixels = q.shape[2]
        bias = mask[:, None].expand(-1, -1, pixels, -1)  # mask (B,1,T): 0 or very negative
        if words is not None:
            bias = bias + words.at(self.layer, pixels)[:, None]
        return bias.to(q.dtype).contiguous()


def install(unet: UNet2DConditionModel) -> int:
    """Give the UNet these processors; returns its number of cross-attention layers (gates of WordBias)."""
    names = list(unet.attn_processors)
    cross = [name for name in names if ".attn2." in name]
    layer = {name: i for i, name in enumerate(cross)}
    unet.set_attn_processor({name: BiasedAttention(layer.get(name)) for name in names})
    return len(cross)
