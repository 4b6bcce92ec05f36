"""Base class of transformer backbones: patch embedding, timestep embedding, injection points and output layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.base import NO_MODULATIONS, Backbone
from ragaf_exp.models.backbones.patches import PatchEmbedding, PatchOutput
from ragaf_exp.models.backbones.points import OUT, Injected, Modulation, Shape
from ragaf_exp.models.backbones.positions import POSITIONS, Rotation
from ragaf_exp.models.backbones.unet import PixelHead
from ragaf_exp.models.conditioning import Text

FIRST, BLOCK = "in", "block."
WAVES = 256  # channels of the sinusoidal timestep embedding


class TokenBackbone(Backbone):
    """A transformer over the tokens of a latent of any height and width. Subclasses build the `layers`.

    Injection points are `in`, the features at the latent's resolution, `block.i`, the token grid after each block, and
    `out`, the head's features at full resolution.

    Args:
        channels: C, latent channels.
        patch: Side of the codec's patches in pixels.
        width: Channels of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        patch_size: Side of a token in latent pixels.
        positions: Position encoding, rotary or sincos.
        head_width: Channels of the full-resolution head, 0 = none.

    Raises:
        UserError: The settings are inconsistent.
    """

    layers: nn.ModuleList

    def __init__(
        self, channels: int, patch: int, width: int, depth: int, heads: int, patch_size: int, positions: str,
        head_width: int,
    ):  # fmt: skip
        super().__init__()
        check(channels, patch, width, heads, positions, head_width)
        at_least("backbone", 1, depth=depth, patch_size=patch_size)
        self.embedding = PatchEmbedding(channels, width, patch_size)
        self.time = TimestepEmbedding(WAVES, width)
        self.output = PatchOutput(channels, width, self.embedding, patch if channels == 3 * patch**2 else 0)
        self.head = PixelHead(patch, head_width) if head_width else None
        self.positions, self.width, self.heads = POSITIONS[positions](), width, heads
        self.stride, self.patch, self.head_width, self.cross_layers = patch_size, patch, head_width, depth

    @abstractmethod
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
            valid: Valid tokens of the grid, (B,height,width) bool, for subclasses that take them; None = all.

        Returns:
            (B,L,C).
        """

    @abstractmethod
    def attending(self) -> list[nn.Module]:
        """Return the layers that attend to the text. Each has an attribute `watch`."""

    def condition(self, t: Tensor, text: Text) -> Tensor:
        """Embed timesteps t (B,) in the conditioning vector that modulates the blocks, (B,C)."""
        waves = get_timestep_embedding(t, WAVES, flip_sin_to_cos=True, downscale_freq_shift=0)
        return F.silu(self.time(waves.to(self.output.modulation.weight.dtype)))

    def shapes(self, height: int, width: int) -> dict[str, Shape]:
        """Return channels and resolution at every injection point, for latents of height x width."""
        grid = (self.width, height // self.stride, width // self.stride)
        shapes: dict[str, Shape] = {FIRST: (self.embedding.features, height, width)}
        shapes |= {f"{BLOCK}{i}": grid for i in range(len(self.layers))}
        full = (self.head_width, height * self.patch, width * self.patch)
        return shapes if self.head is None else shapes | {OUT: full}

    def forward(
        self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor], words: WordBias | None = None,
        modulations: Mapping[str, Modulation] = NO_MODULATIONS, valid: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Predict the diffusion target for latents of any height and width that are multiples of patch_size.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).
            text: Encoded captions.
            residuals: Injection point -> (B,C',h',w'), added to the features there.
            words: Bias of image-to-text attention.
            modulations: Injection point -> modulation of the features there, applied after the residual.
            valid: Known cells, (B,1,h,w) bool, for a backbone that takes them; None = all.

        Returns:
            The prediction, (B,C,h,w).
        """
        at, size = Injected(residuals, modulations), (x_t.shape[2] // self.stride, x_t.shape[3] // self.stride)
        features, x = self.embedding(x_t, partial(at.on_map, FIRST))  # (B,features,h,w), (B,L,C)
        position = self.positions.embedding(*size, self.width, x.device)
        x = x if position is None else x + position.to(x.dtype)
        rotation = self.positions.rotation(*size, self.width // self.heads, x.device)
        c = self.condition(t, text)  # (B,C)
        tokens = self._valid_tokens(x_t, valid) if self.takes_valid else None
        x = self.through(x, c, text, words, rotation, lambda i, y: at.on_tokens(f"{BLOCK}{i}", y, size), tokens)
        out = self.output(x, c, features, size)  # (B,C,h,w)
        return out if self.head is None else self.head(out, x_t, partial(at.on_map, OUT))

    def _valid_tokens(self, x_t: Tensor, valid: Tensor | None) -> Tensor:
        """Return (B,h/p,w/p) bool: the tokens with at least one known cell; all of them if `valid` is None."""
        cells = torch.ones_like(x_t[:, :1]) if valid is None else valid.to(x_t.dtype)
        return F.max_pool2d(cells, self.stride)[:, 0] > 0

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)

    def recomputed_blocks(self) -> list[nn.Module]:
        """Return the blocks, and the head, whose features have the image's full resolution."""
        return [*self.layers, *([] if self.head is None else [self.head])]

    @contextmanager
    def watch_attention(self, watch: Callable[[Tensor], object]) -> Iterator[None]:
        for layer in self.attending():
            vars(layer)["watch"] = watch
        try:
            yield
        finally:
            for layer in self.attending():
                del vars(layer)["watch"]


def check(channels: int, patch: int, width: int, heads: int, positions: str, head_width: int) -> None:
    """Check that a transformer's settings are consistent.

    Args:
        channels: C, latent channels.
        patch: Side of the codec's patches in pixels.
        width: Channels of a token.
        heads: Number of attention heads.
        positions: Name of the position encoding.
        head_width: Channels of the full-resolution head, 0 = none.

    Raises:
        UserError: They are not.
    """
    at_least("backbone", 1, width=width, heads=heads)
    at_least("backbone", 0, head_width=head_width)
    if positions not in POSITIONS:
        raise UserError(f"backbone.positions={positions}: must be one of {sorted(POSITIONS)}")
    if width % (4 * heads):
        raise UserError(f"backbone.width={width}: must be a multiple of 4 backbone.heads = {4 * heads}, as each head "
                        "rotates pairs of channels by row and by column")  # fmt: skip
    if head_width and channels != 3 * patch**2:
        raise UserError(f"backbone.head_width={head_width}: the head works on pixels, and this codec's latents have "
                        f"{channels} channels; set backbone.head_width=0 or codec=pixel")  # fmt: skip
