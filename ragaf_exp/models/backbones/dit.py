"""DiT: a diffusion transformer with cross-attention to the text, and full or contextual attention between image tokens."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Annotated

from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.config.ranges import OneOf
from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.isolation import Columns
from ragaf_exp.models.backbones.positions import Rotation
from ragaf_exp.models.backbones.token_attention import CrossAttention, SelfAttention, text_bias
from ragaf_exp.models.backbones.token_backbone import TokenBackbone
from ragaf_exp.models.backbones.windows import WindowBias, contextual
from ragaf_exp.models.conditioning import Appended, Text
from ragaf_exp.models.layers import zero_module

FULL, CONTEXTUAL = "full", "contextual"
Attention = Annotated[str, OneOf((FULL, CONTEXTUAL))]


def feed_forward(width: int) -> nn.Sequential:
    """Return an MLP of two linear layers whose hidden width is 4 * width."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))


class Block(nn.Module):
    """adaLN-Zero (Peebles & Xie 2023, arXiv 2212.09748): scale, shift and gate of both branches depend on the condition.

    The gates start at zero, so the block starts as the identity, and cross-attention to the text lies between the two
    branches (Chen et al. 2024, arXiv 2310.00426).

    Args:
        width: C, channels of an image token.
        text_width: D, channels of a text token.
        heads: Number of attention heads.
    """

    def __init__(self, width: int, text_width: int, heads: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.own, self.cross = SelfAttention(width, heads), CrossAttention(width, text_width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.feed = feed_forward(width)
        self.modulation = zero_module(nn.Linear(width, 6 * width))

    def forward(
        self, x: Tensor, c: Tensor, tokens: Tensor, bias: Tensor, rotation: Rotation | None,
        within: WindowBias | None = None, appended: Appended | None = None, isolated: Columns | None = None,
    ) -> Tensor:  # fmt: skip
        """Apply the block.

        Args:
            x: Image tokens, (B,L,C).
            c: Conditioning vector for the modulation, (B,C).
            tokens: Text tokens, (B,T,D).
            bias: Bias of the cross-attention logits, (B,1,1 or L,T).
            rotation: Rotary embedding of the image tokens' positions.
            within: Windows of the self-attention; None = all tokens in one.
            appended: Region tokens of this layer, (B,N,D).
            isolated: Bias of self-attention between tokens of different regions.

        Returns:
            Updated image tokens, (B,L,C).
        """
        scale, shift, gate, scale_2, shift_2, gate_2 = self.modulation(c)[:, None].chunk(6, dim=-1)  # (B,1,C) each
        x = x + gate * self.own(self.norms[0](x) * (1 + scale) + shift, rotation, within, isolated)  # (B,L,C)
        x = x + self.cross(self.cross_norm(x), tokens, bias, appended)
        return x + gate_2 * self.feed(self.norms[1](x) * (1 + scale_2) + shift_2)


class DiT(TokenBackbone):
    """A diffusion transformer, small enough to train on two CPU cores in minutes.

    Args:
        channels: Latent channels (wiring).
        text_width: D, channels of the text's tokens (wiring).
        patch: Side of the codec's patches in pixels (wiring).
        width: Channels of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        patch_size: Side of a token in latent pixels.
        positions: Position encoding, rotary or sincos.
        head_width: Channels of the full-resolution head, 0 = none.
        attention: Attention between image tokens: `full`, or `contextual`, within windows and not to tokens that a
            task's hole hides (see windows.py). Neither has more weights.
        window: Side of a window in tokens, for contextual attention.

    Raises:
        UserError: The settings are inconsistent.
    """

    attention_layers = {"all": (".own.", ".cross."), "self": (".own.",), "cross": (".cross.",)}
    projections = ("to_q", "to_k", "to_v", "to_out")

    def __init__(
        self, channels: int, text_width: int, patch: int, width: limits.Width = 192, depth: limits.Layers = 4,
        heads: limits.Heads = 6, patch_size: limits.Patch = 2, positions: str = "rotary",
        head_width: limits.Channels = 16, attention: Attention = FULL, window: limits.Window = 4,
    ):  # fmt: skip
        super().__init__(channels, patch, width, depth, heads, patch_size, positions, head_width)
        self.takes_valid, self.window = attention == CONTEXTUAL, window
        self.layers = nn.ModuleList(Block(width, text_width, heads) for _ in range(depth))

    def through(
        self, x: Tensor, c: Tensor, text: Text, words: WordBias | None, rotation: Rotation | None,
        change: Callable[[int, Tensor], Tensor], valid: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Apply all blocks to the image tokens.

        Args:
            x: Image tokens, (B,L,C).
            c: Conditioning vector for the modulation, (B,C).
            text: Encoded captions.
            words: Bias of image-to-text attention.
            rotation: Rotary embedding of the tokens' positions.
            change: Called with a block's index and its output tokens; returns the tokens for the next block.
            valid: Valid tokens of the grid, (B,height,width) bool; None = full attention.

        Returns:
            (B,L,C).
        """
        within = repeat(None) if valid is None else contextual(valid, self.window)
        for i, (layer, windows) in enumerate(zip(self.layers, within, strict=False)):
            appended = None if text.appended is None else text.appended.at(i)
            bias = text_bias(text, i, x.shape[1], words)
            isolated = None if words is None else words.isolated(i, x.shape[1])
            x = change(i, layer(x, c, text.tokens, bias, rotation, windows, appended, isolated))
        return x

    def attending(self) -> list[nn.Module]:
        return [layer.get_submodule("cross") for layer in self.layers]
