"""Injection (config group `injection`): region tokens into the UNet, through outputs that start at zero.

`Injection` adds a token to the pixels of its region, `Film` scales and shifts them, `Cross` lets pixels attend to
tokens. All of them may bias image-to-text attention.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.points import OUT, Injected, Modulation, Shape
from ragaf_exp.models.conditioning import RegionState
from ragaf_exp.models.layers import zero_module

FLOOR = 1e-3  # of p(token | pixel): bounds the bias, and lets a wrong region map be unlearnt
POINTS = ("in", "down", "mid", "up", "out")
ALL = "all"  # every injection point of the backbone, whatever their names


class Injection(nn.Module):
    """Adds each region's token to the pixels of its soft mask; with `words` it also biases image-to-text attention.

    shapes: injection point -> (C,h,w), traced at the training images' size; width: R; cross_layers: of the UNet (all
    wiring). points: the prefixes of those to use, as [mid] or [down, mid], or [all]. words: bias image-to-text attention.
    """

    outputs = 1  # values that a token gives each channel

    def __init__(
        self, shapes: dict[str, Shape], width: int, cross_layers: int, points: limits.Points = POINTS, words: bool = False
    ):
        super().__init__()
        known = sorted({p.split(".")[0] for p in shapes})
        unknown = [p for p in points if p not in (*known, OUT, ALL)]  # out: where the backbone has it
        if unknown:
            raise UserError(f"injection.points={list(points)}: unknown {unknown}; known are {known}")
        if not points and not words:
            raise UserError("injection.points=[]: region tokens reach nothing; name some of "
                            f"{', '.join(known)}, or set injection.words=true")  # fmt: skip
        self.shapes = {p: s for p, s in shapes.items() if ALL in points or p.split(".")[0] in points}
        self.out = nn.ModuleDict({_key(p): self._output(p, width, s[0]) for p, s in self.shapes.items()})
        self.attended = {p: s[1:] for p, s in shapes.items() if p != OUT}  # resolutions of the UNet
        self.gates = nn.Parameter(torch.zeros(cross_layers)) if words else None

    def forward(self, tokens: Tensor, state: RegionState, hint: dict[str, Tensor]) -> Injected:
        """What changes the features at each injection point.

        Args:
            tokens: of the regions, (B,N,R).
            state: the regions' soft masks and their attention to the text.
            hint: injection point -> residual (B,C,h,w) of the sketch encoder.

        Returns:
            Residuals, the hint's included, and modulations of the features that these were added to.
        """
        spread = {p: self._spread(p, tokens, state) for p in self.shapes}
        return Injected(hint | {p: hint[p] + added if p in hint else added for p, added in spread.items()})

    def words(self, state: RegionState) -> WordBias | None:
        """log p(token | pixel), relative to the pixel's likeliest token; a pixel that no word speaks of has no bias."""
        if self.gates is None:
            return None
        attended = {state.sizes.get(p, size) for p, size in self.attended.items()}
        maps = {h * w: self._log_map(state.soft_masks[h, w], state) for h, w in attended}
        return WordBias(maps, self.gates)

    def _output(self, point: str, width: int, channels: int) -> nn.Module:
        return zero_module(nn.Linear(width, self.outputs * channels))

    def _spread(self, point: str, tokens: Tensor, state: RegionState) -> Tensor:
        """What the tokens say at each pixel: (B,outputs C,h,w)."""
        masks = state.soft_masks[self._size(point, state)]
        values = self.out[_key(point)](tokens)  # (B,N,outputs C)
        return (values.transpose(1, 2) @ masks.flatten(2).to(values.dtype)).unflatten(2, masks.shape[2:])

    def _size(self, point: str, state: RegionState) -> tuple[int, int]:
        """(h,w) of the features at an injection point."""
        return state.sizes.get(point, self.shapes[point][1:])

    def _log_map(self, masks: Tensor, state: RegionState) -> Tensor:
        p = masks.flatten(2).transpose(1, 2).float() @ state.region_text.float()  # (B,hw,T)
        log_map = (p + FLOOR).log()
        return log_map - log_map.amax(-1, keepdim=True)


class Film(Injection):
    """Each region's token scales and shifts the features of its pixels (Perez et al. 2018, arXiv 1709.07871)."""

    outputs = 2

    def forward(self, tokens: Tensor, state: RegionState, hint: dict[str, Tensor]) -> Injected:
        """As Injection's: the hint's residuals, and at each point a scale and a shift."""
        return Injected(hint, {p: self._film(self._spread(p, tokens, state)) for p in self.shapes})

    @staticmethod
    def _film(values: Tensor) -> Modulation:
        """values (B,2C,h,w): scale, then shift."""
        scale, shift = values.chunk(2, dim=1)
        return lambda features: features * (1 + scale) + shift


class RegionCrossAttention(nn.Module):
    """Pixels attend to region tokens; a pixel far from any region attends to nothing. Its output starts at zero."""

    def __init__(self, width: int, channels: int, heads: int, slots: int):
        super().__init__()
        self.heads, self.slots = heads, slots
        self.norm = nn.LayerNorm(channels)
        self.q = nn.Linear(channels, width)
        self.kv = nn.Linear(width, 2 * slots * width)
        self.null = nn.Parameter(torch.zeros(width))  # key of nothing, whose value is zero
        self.out = zero_module(nn.Linear(width, channels, bias=False))

    def forward(self, features: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """features (B,C,h,w), tokens (B,N,R), bias (B,hw,1+N): of nothing, then of each region -> (B,C,h,w)."""
        pixels = features.flatten(2).transpose(1, 2)  # (B,hw,C)
        q = self.q(self.norm(pixels))
        k, v = self.kv(tokens).unflatten(-1, (2, self.slots, -1)).unbind(2)  # (B,N,slots,R)
        k = torch.cat([self.null.expand(len(k), 1, -1).to(k.dtype), k.flatten(1, 2)], 1)  # (B,1+N slots,R)
        v = F.pad(v.flatten(1, 2), (0, 0, 1, 0))
        bias = torch.cat([bias[..., :1], bias[..., 1:].repeat_interleave(self.slots, -1)], -1)[:, None]
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        read = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=bias.to(q.dtype))  # (B,heads,hw,d)
        return self.out(read.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, features.shape[2:])


class Cross(Injection):
    """Gated cross-attention of pixels to region tokens, biased by log of the regions' soft masks.

    heads: of the attention. slots: keys and values that each token gives, so that a region may say several things.
    reach: cells around a region whose pixels may attend to it too. At full resolution (`out`), where attention would
    cost more than the rest of the network, tokens are added.
    """

    def __init__(
        self, shapes: dict[str, Shape], width: int, cross_layers: int, points: limits.Points = POINTS, words: bool = False,
        heads: limits.Heads = 4, slots: limits.Slots = 1, reach: limits.Reach = 1,
    ):  # fmt: skip
        at_least("injection", 1, heads=heads, slots=slots)
        at_least("injection", 0, reach=reach)
        if width % heads:
            raise UserError(f"injection.heads={heads}: must divide ragaf.width={width}")
        self.heads, self.slots, self.reach = heads, slots, reach
        super().__init__(shapes, width, cross_layers, points, words)

    def forward(self, tokens: Tensor, state: RegionState, hint: dict[str, Tensor]) -> Injected:
        """As Injection's: attention modulates the features of the network, and at full resolution tokens are added."""
        inner = {p: self._size(p, state) for p in self.shapes if p != OUT}
        bias = {size: self._bias(state.soft_masks[size], state.region_mask) for size in set(inner.values())}
        attending = {p: self._attending(p, tokens, bias[size]) for p, size in inner.items()}
        added = {p: self._spread(p, tokens, state) for p in self.shapes if p == OUT}
        return Injected(hint | {p: hint[p] + x if p in hint else x for p, x in added.items()}, attending)

    def _output(self, point: str, width: int, channels: int) -> nn.Module:
        if point == OUT:
            return super()._output(point, width, channels)
        return RegionCrossAttention(width, channels, self.heads, self.slots)

    def _attending(self, point: str, tokens: Tensor, bias: Tensor) -> Modulation:
        attend = self.out[_key(point)]
        return lambda features: features + attend(features, tokens, bias)

    def _bias(self, masks: Tensor, real: Tensor) -> Tensor:
        """masks (B,N,h,w), real (B,N) -> (B,hw,1+N): log of how near a pixel is to each region, of nothing first."""
        side = 2 * self.reach + 1
        near = F.max_pool2d(masks.float(), side, stride=1, padding=self.reach) / 2  # the pixel's own region counts most
        near = (near + masks.float() / 2).flatten(2).transpose(1, 2)  # (B,hw,N)
        bias = torch.where((near > 0) & real[:, None], near.clamp(min=FLOOR).log(), MASK_VALUE)
        return F.pad(bias, (1, 0), value=0.0)


def _key(point: str) -> str:
    return point.replace(".", "_")
