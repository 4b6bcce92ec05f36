"""MMDiT: a diffusion transformer in which text and image tokens attend to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.dit import feed_forward
from ragaf_exp.models.backbones.isolation import Columns
from ragaf_exp.models.backbones.joint_attention import JointAttention
from ragaf_exp.models.backbones.positions import Rotation
from ragaf_exp.models.backbones.token_attention import text_bias
from ragaf_exp.models.backbones.token_backbone import TokenBackbone
from ragaf_exp.models.conditioning import Appended, Text
from ragaf_exp.models.layers import zero_module


class Branch(nn.Module):
    """The modulation and feed-forward layers of a block for one modality, image or text (adaLN-Zero)."""

    def __init__(self, width: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.feed = feed_forward(width)
        self.modulation = zero_module(nn.Linear(width, 6 * width))

    def before(self, x: Tensor, c: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Normalise and modulate tokens x (B,L,C) by c (B,C).

        Returns the input of attention (B,L,C), and the modulation that `after` takes.
        """
        scale, shift, *rest = self.modulation(c)[:, None].chunk(6, dim=-1)  # (B,1,C) each
        return self.norms[0](x) * (1 + scale) + shift, rest

    def after(self, x: Tensor, modulation: Sequence[Tensor], read: Tensor) -> Tensor:
        """Add the gated attention output, then the gated feed-forward branch.

        Args:
            x: Tokens before attention, (B,L,C).
            modulation: The gate of attention; scale, shift and gate of the feed-forward branch, (B,1,C) each.
            read: Output of attention, (B,L,C).

        Returns:
            Updated tokens, (B,L,C).
        """
        gate, scale, shift, gate_2 = modulation
        x = x + gate * read  # (B,L,C)
        return x + gate_2 * self.feed(self.norms[1](x) * (1 + scale) + shift)


class LastText(nn.Module):
    """The text branch of the last block, which attends to the text but does not update it."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zero_module(nn.Linear(width, 2 * width))

    def before(self, x: Tensor, c: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Normalise and modulate tokens x (B,T,C) by c (B,C); returns the input of attention, (B,T,C), and nothing else."""
        scale, shift = self.modulation(c)[:, None].chunk(2, dim=-1)  # (B,1,C) each
        return self.norm(x) * (1 + scale) + shift, ()

    def after(self, x: Tensor, modulation: Sequence[Tensor], read: Tensor | None) -> Tensor:
        """Return the text tokens unchanged: no later block uses them.

        Args:
            x: Text tokens, (B,T,C).
            modulation: Not used.
            read: Not used.

        Returns:
            (B,T,C).
        """
        return x


class JointBlock(nn.Module):
    """One block of Stable Diffusion 3 (Esser et al. 2024, arXiv 2403.03206): separate weights, joint attention.

    Args:
        width: C, channels of a token.
        heads: Number of attention heads.
        last: Whether this is the last block, in which the text is not updated.
    """

    def __init__(self, width: int, heads: int, last: bool):
        super().__init__()
        self.joint = JointAttention(width, heads, updates_text=not last)
        self.image = Branch(width)
        self.text = LastText(width) if last else Branch(width)

    def forward(
        self, x: Tensor, text: Tensor, c: Tensor, bias: Tensor, padding: Tensor, rotation: Rotation | None,
        appended: Appended | None = None, isolated: Columns | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Apply the block.

        Args:
            x: Image tokens, (B,L,C).
            text: Text tokens, (B,T,C).
            c: Conditioning vector for the modulation, (B,C).
            bias: Bias of the image-to-text attention logits, (B,1,1 or L,T).
            padding: Padding mask of the text as an additive bias, (B,1,1,T).
            rotation: Rotary embedding of the image tokens' positions.
            appended: Region tokens of this layer, (B,N,C), to which the layers of the text apply.
            isolated: Bias of image tokens' attention to text and image tokens, of an injection without `appended`.

        Returns:
            Updated image tokens (B,L,C), text tokens (B,T,C), and region tokens (B,N,C) if there are any.
        """
        image_in, image_modulation = self.image.before(x, c)
        text_in, text_modulation = self.text.before(text, c)
        regions_in = None if appended is None else replace(appended, tokens=self.text.before(appended.tokens, c)[0])
        read, text_read, regions_read = self.joint(image_in, text_in, bias, padding, rotation, regions_in, isolated)
        regions = None if appended is None else self.text.after(appended.tokens, text_modulation, regions_read)
        x, text = self.image.after(x, image_modulation, read), self.text.after(text, text_modulation, text_read)
        return x, text, regions


class MMDiT(TokenBackbone):
    """A multi-modal diffusion transformer; the timestep and the mean of the text modulate its blocks.

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

    Raises:
        UserError: The settings are inconsistent.
    """

    attention_layers = {"all": (".joint.",), "self": (".joint.to_",), "cross": (".joint.add_",)}
    projections = ("to_q", "to_k", "to_v", "to_out", "add_q", "add_k", "add_v", "add_out")

    def __init__(
        self, channels: int, text_width: int, patch: int, width: limits.Width = 160, depth: limits.Layers = 4,
        heads: limits.Heads = 5, patch_size: limits.Patch = 2, positions: str = "rotary",
        head_width: limits.Channels = 16,
    ):  # fmt: skip
        super().__init__(channels, patch, width, depth, heads, patch_size, positions, head_width)
        self.text_in, self.pooled = nn.Linear(text_width, width), nn.Linear(text_width, width)
        self.layers = nn.ModuleList(JointBlock(width, heads, last=i == depth - 1) for i in range(depth))

    def condition(self, t: Tensor, text: Text) -> Tensor:
        """Embed timesteps t (B,) and the mean of the text tokens in the conditioning vector, (B,C)."""
        present = text.mask[..., None].to(text.tokens.dtype)  # (B,T,1)
        mean = (text.tokens * present).sum(1) / present.sum(1)  # (B,D)
        return super().condition(t, text) + F.silu(self.pooled(mean))

    def through(
        self, x: Tensor, c: Tensor, text: Text, words: WordBias | None, rotation: Rotation | None,
        change: Callable[[int, Tensor], Tensor], valid: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Apply all blocks to image and text tokens.

        Args:
            x: Image tokens, (B,L,C).
            c: Conditioning vector for the modulation, (B,C).
            text: Encoded captions.
            words: Bias of image-to-text attention.
            rotation: Rotary embedding of the tokens' positions.
            change: Called with a block's index and its output tokens; returns the tokens for the next block.
            valid: Not used: attention is full.

        Returns:
            Image tokens, (B,L,C).
        """
        tokens, padding = self.text_in(text.tokens), text_bias(text, 0, x.shape[1], None)  # (B,T,C), (B,1,1,T)
        appended = text.appended
        regions = None if appended is None else self.text_in(appended.tokens)  # (B,N,C)
        for i, layer in enumerate(self.layers):
            isolated = None if words is None else words.jointly_isolated(i, x.shape[1])  # contains the bias by words
            bias = padding if words is None or isolated is not None else text_bias(text, i, x.shape[1], words)
            here = None if appended is None or regions is None else replace(appended.at(i), tokens=regions)
            x, tokens, regions = layer(x, tokens, c, bias, padding, rotation, here, isolated)
            x = change(i, x)
        return x

    def attending(self) -> list[nn.Module]:
        return [layer.get_submodule("joint") for layer in self.layers]
