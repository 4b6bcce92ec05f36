"""Image-to-text attention with a per-pixel bias (`injection.words`) towards the words of the pixel's region.

These processors replace diffusers' default ones. They use its projections and PyTorch's fused attention kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from ragaf_exp.models.backbones.isolation import Columns, Isolation, attention
from ragaf_exp.models.conditioning import Appended


@dataclass(frozen=True)
class WordBias:
    """Bias that is added to the attention logits of every image-to-text layer: gate x log p(token | pixel)."""

    log_map: dict[int, Tensor]  # h w -> (B,h w,T)
    gates: Tensor  # (layers,)
    isolation: Isolation | None = None  # of the image tokens of different regions; None = they see each other

    def at(self, layer: int, pixels: int) -> Tensor:
        """Return the bias (B,h w,T) of one layer at a resolution of `pixels` = h w."""
        return self.gates[layer] * self.log_map[pixels]

    def isolated(self, block: int | None, tokens: int) -> Columns | None:
        """Return the bias of attention between `tokens` = h w image tokens of a block; None if it has no isolation."""
        return None if self.isolation is None or block is None else self.isolation.at(block, tokens)

    def jointly_isolated(self, block: int, tokens: int) -> Columns | None:
        """Return the bias of image tokens' attention to text and image tokens together; None if there is no isolation."""
        return None if self.isolation is None else self.isolation.with_text(block, tokens)

    def padded(self, tokens: int) -> WordBias:
        """Append this many tokens, which get no bias."""
        maps = {pixels: F.pad(log_map, (0, tokens)) for pixels, log_map in self.log_map.items()}
        return replace(self, log_map=maps, isolation=None if self.isolation is None else self.isolation.padded(tokens))


def gated(read: Tensor, wider: Tensor, gate: Tensor) -> Tensor:
    """Mix two outputs of attention.

    Args:
        read: Output of attention to the text.
        wider: Output of attention to the text and to the region tokens behind it.
        gate: Share of the latter, (); at 0 the result equals `read` to the bit.

    Returns:
        read + gate (wider - read).
    """
    return read + gate * (wider - read)


def followed_by(bias: Tensor, further: Tensor) -> Tensor:
    """Append the bias of further keys (B,1,1,N) to a bias (B,1,1 or L,T)."""
    return torch.cat([bias, further.to(bias.dtype).expand(-1, -1, bias.shape[2], -1)], dim=-1)


class BiasedAttention:
    """An attention processor for diffusers.

    Attributes:
        layer: Index among the UNet's cross-attention layers; None for self-attention.
        block: Index of the transformer block, for self-attention; None for cross-attention.
        watch: If set, it is called with every image-to-text attention map (B,h w,T), the mean over heads.
    """

    watch: Callable[[Tensor], object] | None = None

    def __init__(self, layer: int | None, block: int | None = None):
        self.layer, self.block = layer, block

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, word_bias: WordBias | None = None, appended: Appended | None = None,
    ) -> Tensor:  # fmt: skip
        """Compute the layer's output (B,h w,C).

        Args:
            attn: The layer, whose projections are used.
            hidden_states: Image features, (B,h w,C).
            encoder_hidden_states: Text tokens, (B,T,D); None for self-attention.
            attention_mask: Additive mask of the text, (B,1,T): 0 or very negative.
            word_bias: Per-pixel bias of the logits of cross-attention, and isolation of regions in self-attention.
            appended: Region tokens behind those of the text, (B,N,D), and a gate per layer.
        """
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states  # (B,T,D)
        q, k, v = _heads(attn, attn.to_q(hidden_states)), *_keys(attn, context)
        thin = self._bias(attention_mask, word_bias, q)  # (B,1,1 or h w,T)
        # expanded in both stages, so that the same kernel runs with and without a word bias
        bias = None if thin is None else thin.expand(-1, -1, q.shape[2], -1).contiguous()
        if self.watch is not None and self.layer is not None:
            logits = (q @ k.transpose(-1, -2)).float() * attn.scale
            self.watch((logits if bias is None else logits + bias).softmax(-1).mean(1))
        isolated = None if word_bias is None else word_bias.isolated(self.block, q.shape[2])
        out = attention(q, k, v, bias, isolated, attn.scale)
        if appended is not None and self.layer is not None and thin is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip((k, v), _keys(attn, appended.tokens), strict=True))
            wider = F.scaled_dot_product_attention(q, k, v, attn_mask=followed_by(thin, appended.bias), scale=attn.scale)
            out = gated(out, wider, appended.gates[self.layer])
        out = out.transpose(1, 2).flatten(-2)  # (B,h w,C)
        return attn.to_out[1](attn.to_out[0](out))

    def _bias(self, mask: Tensor | None, words: WordBias | None, q: Tensor) -> Tensor | None:
        """Return (B,1,1,T) without `words`, else (B,1,h w,T); None for self-attention."""
        if self.layer is None or mask is None:
            return None
        bias = mask if words is None else mask + words.at(self.layer, q.shape[2])  # mask (B,1,T): 0 or very negative
        return bias[:, None].to(q.dtype)


def _heads(attn: Attention, x: Tensor) -> Tensor:
    """Reshape (B,L,C) to (B,heads,L,d)."""
    return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def _keys(attn: Attention, context: Tensor) -> tuple[Tensor, Tensor]:
    """Return the keys and values (B,heads,T,d) of tokens (B,T,D)."""
    return _heads(attn, attn.to_k(context)), _heads(attn, attn.to_v(context))


def install(unet: UNet2DConditionModel) -> int:
    """Install these processors in the UNet and return its number of cross-attention layers (gates of WordBias)."""
    names = list(unet.attn_processors)
    cross = [name for name in names if ".attn2." in name]
    layer = {name: i for i, name in enumerate(cross)}
    block = {name.replace(".attn2.", ".attn1."): i for name, i in layer.items()}
    unet.set_attn_processor({name: BiasedAttention(layer.get(name), block.get(name)) for name in names})
    return len(cross)
