"""Attention in which image tokens of one region do not see those of another, without a mask in memory.

Which keys a query sees depends on its region alone, so the bias of the logits is a product of two matrices with one
column per region. They are appended to queries and keys, whose product then contains the bias. Memory grows with the number
of tokens, not with its square, and the fused kernels run as without a mask.

Shapes: B batch, L image tokens, K keys, T text tokens, N regions, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNED = 8  # the kernels of GPUs take heads whose width is a multiple of it


@dataclass(frozen=True)
class Columns:
    """A bias of attention logits in factors: queries @ keys^T."""

    queries: Tensor  # (B,1,L,N)
    keys: Tensor  # (B,1,K,N)

    def map(self, change: Callable[[Tensor], Tensor]) -> Columns:
        """Apply a function, such as a split into windows, to both factors."""
        return Columns(change(self.queries), change(self.keys))

    def product(self) -> Tensor:
        """Return the bias itself, (B,1,L,K), for recorded attention."""
        return self.queries @ self.keys.transpose(-1, -2)


@dataclass(frozen=True)
class Isolation:
    """Lowers the logits between image tokens of different objects.

    The background and tokens without a region attend to all tokens, and all attend to them.
    """

    cells: dict[int, Tensor]  # h w -> (B,h w,N): 1 = the token is of this region; of at most one
    objects: Tensor  # (B,N): 1 = the region is an object, 0 = the background
    gates: Tensor  # (blocks,) added to the logits of hidden tokens
    blocks: int  # number of blocks with isolation, from the first
    words: Tensor  # (B,N,T) word bias of each region's tokens, for attention to text and image in one softmax
    word_gates: Tensor  # (blocks,) factor of `words`

    def at(self, block: int, tokens: int) -> Columns | None:
        """Return the bias of attention between `tokens` = h w image tokens; None if the block has no isolation."""
        if block >= self.blocks:
            return None
        cells = self.cells[tokens][:, None]  # (B,1,L,N)
        objects = self.objects[:, None, None]  # (B,1,1,N)
        own = cells * objects
        others = (own.sum(-1, keepdim=True) - own) * objects  # 1 = an object, and the token is of another one
        return Columns(cells, self.gates[block] * others)

    def with_text(self, block: int, tokens: int) -> Columns | None:
        """Return the bias of attention to the text, followed by image tokens, with the word bias; or None as in `at`."""
        columns = self.at(block, tokens)
        if columns is None:
            return None
        words = self.word_gates[block] * self.words.transpose(1, 2)[:, None]  # (B,1,T,N)
        return replace(columns, keys=torch.cat([words, columns.keys], dim=2))

    def padded(self, tokens: int) -> Isolation:
        """Append this many text tokens, which get no bias."""
        return replace(self, words=F.pad(self.words, (0, tokens)))


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, columns: Columns | None = None, scale: float | None = None
) -> Tensor:
    """Compute attention by a fused kernel.

    With columns, values get as many zeros as queries and keys get columns: the kernels take one width for all three, and
    those of GPUs take multiples of 8.

    Args:
        q: Queries, (B,heads,L,d).
        k: Keys, (B,heads,K,d).
        v: Values, (B,heads,K,d).
        bias: Bias of the logits, (B,1,1 or L,K).
        columns: A further bias in factors.
        scale: Factor of the logits before both; 1 / sqrt(d) by default.

    Returns:
        (B,heads,L,d).
    """
    if columns is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    width, scale = q.shape[-1], scale or q.shape[-1] ** -0.5
    aligned = columns.map(lambda x: F.pad(x, (0, -(width + x.shape[-1]) % ALIGNED)))
    q, k = _followed_by(q, aligned.queries), _followed_by(k, aligned.keys / scale)
    v = F.pad(v, (0, q.shape[-1] - width))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)[..., :width]


def _followed_by(x: Tensor, columns: Tensor) -> Tensor:
    """Append the columns (B,1,L,N) to every head of x (B,heads,L,d)."""
    return torch.cat([x, columns.to(x.dtype).expand(-1, x.shape[1], -1, -1)], dim=-1)
