"""Attention layers of transformers over image tokens: self-attention, and cross-attention to the text.

Queries and keys are normalised per head (Henry et al. 2020, arXiv 2010.04245; Dehghani et al. 2023, arXiv 2302.05442), and
PyTorch's fused kernels compute the rest. Shapes: B batch, L image tokens, T text tokens, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.models.backbones.attention import WordBias, followed_by, gated
from ragaf_exp.models.backbones.isolation import Columns, attention
from ragaf_exp.models.backbones.positions import Rotation, rotate
from ragaf_exp.models.backbones.windows import WindowBias
from ragaf_exp.models.conditioning import Appended, Text
from ragaf_exp.models.layers import zero_module

Watch = Callable[[Tensor], object]


def text_bias(text: Text, layer: int, tokens: int, words: WordBias | None) -> Tensor:
    """Compute the bias of the image-to-text attention logits: the padding mask plus the word bias, if there is one.

    Args:
        text: Encoded captions.
        layer: Index among the layers that attend to the text.
        tokens: L, number of image tokens.
        words: Bias of image-to-text attention, or None.

    Returns:
        (B,1,1,T) without `words`, else (B,1,L,T).
    """
    visible = text.mask if text.attended is None else text.attended
    masked = torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, MASK_VALUE)[:, None]  # (B,1,T)
    return (masked if words is None else masked + words.at(layer, tokens))[:, None]


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, watch: Watch | None = None, shown: int = 0,
    columns: Columns | None = None,
) -> Tensor:  # fmt: skip
    """Compute multi-head attention.

    Args:
        q: Queries, (B,heads,L,d).
        k: Keys, (B,heads,K,d).
        v: Values, (B,heads,K,d).
        bias: Bias of the logits, (B,1,1 or L,K).
        watch: If given, called with the attention to the first `shown` keys, (B,L,shown), the mean over heads.
        shown: Number of keys that `watch` receives.
        columns: A further bias of the logits, in factors.

    Returns:
        (B,L,heads d).
    """
    bias = None if bias is None else bias.to(q.dtype).expand(-1, -1, q.shape[2], -1)
    if watch is not None:
        logits = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5  # (B,heads,L,K)
        logits = logits if columns is None else logits + columns.product()
        watch((logits if bias is None else logits + bias).softmax(-1).mean(1)[..., :shown])
    return attention(q, k, v, bias, columns).transpose(1, 2).flatten(-2)


class HeadNorm(nn.RMSNorm):
    """Splits channels into heads and normalises each head."""

    def __init__(self, width: int, heads: int):
        super().__init__(width // heads, eps=1e-6)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,L,C) to (B,heads,L,d)."""
        return super().forward(split_heads(x, self.heads))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape (B,L,C) to (B,heads,L,d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Image tokens attend to image tokens, all of them or those of their window."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = HeadNorm(width, heads), HeadNorm(width, heads)

    def forward(
        self, x: Tensor, rotation: Rotation | None, within: WindowBias | None = None, isolated: Columns | None = None
    ) -> Tensor:
        """Attend to image tokens.

        Args:
            x: Image tokens, (B,L,C).
            rotation: Rotary embedding of their positions.
            within: The windows, and which of their tokens are excluded as keys; None = all tokens in one.
            isolated: Bias between tokens of different regions; None = they attend to each other.

        Returns:
            (B,L,C).
        """
        q, k = (rotate(y, rotation) for y in (self.norm_q(self.to_q(x)), self.norm_k(self.to_k(x))))
        v = split_heads(self.to_v(x), self.heads)  # (B,heads,L,d)
        if within is None:
            return self.to_out(attend(q, k, v, None, columns=isolated))
        split = within.windows.split
        columns = None if isolated is None else isolated.map(split)
        return self.to_out(within.windows.join(attend(split(q), split(k), split(v), within.bias, columns=columns)))


class CrossAttention(nn.Module):
    """Image tokens attend to the text. The output starts at zero.

    Args:
        width: C, channels of an image token.
        text_width: D, channels of a text token.
        heads: Number of attention heads.

    Attributes:
        watch: If set, it is called with the attention (B,L,T), the mean over heads.
    """

    watch: Watch | None = None

    def __init__(self, width: int, text_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_out = nn.Linear(width, width), zero_module(nn.Linear(width, width))
        self.to_k, self.to_v = nn.Linear(text_width, width), nn.Linear(text_width, width)
        self.norm_q, self.norm_k = HeadNorm(width, heads), HeadNorm(width, heads)

    def forward(self, x: Tensor, tokens: Tensor, bias: Tensor, appended: Appended | None = None) -> Tensor:
        """Attend to the text, and to region tokens behind it.

        Args:
            x: Image tokens, (B,L,C).
            tokens: Text tokens, (B,T,D).
            bias: Bias of the logits, (B,1,1 or L,T).
            appended: Region tokens of this layer, (B,N,D).

        Returns:
            (B,L,C).
        """
        q, (k, v) = self.norm_q(self.to_q(x)), self._keys(tokens)
        read = attend(q, k, v, bias, self.watch, tokens.shape[1])
        if appended is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip((k, v), self._keys(appended.tokens), strict=True))
            read = gated(read, attend(q, k, v, followed_by(bias, appended.bias)), appended.gates)
        return self.to_out(read)

    def _keys(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values (B,heads,T,d) of tokens (B,T,D)."""
        return self.norm_k(self.to_k(tokens)), split_heads(self.to_v(tokens), self.heads)
