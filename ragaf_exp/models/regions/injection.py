"""Injection of region tokens into the backbone (config group `injection`), through outputs that start at zero.

`Injection` adds a token to the pixels of its region, `Film` scales and shifts these pixels, and in `Cross` pixels attend
to tokens. All of them can bias image-to-text attention.
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
from ragaf_exp.models.conditioning import Appended, RegionState
from ragaf_exp.models.layers import zero_module

FLOOR = 1e-3  # added to p(token | pixel): bounds the bias, so that training can correct a wrong region map
POINTS = ("in", "down", "mid", "up", "out")
ALL = "all"  # every injection point of the backbone, whatever their names


class Injection(nn.Module):
    """Adds each region's token to the pixels of its soft mask.

    Args:
        shapes: Injection point -> (C,h,w), traced at the training images' size (wiring).
        width: R, channels of a region token (wiring).
        cross_layers: Number of the backbone's layers with image-to-text attention (wiring).
        points: Prefixes of the injection points to use, such as [mid] or [down, mid], or [all].
        words: Whether to bias image-to-text attention as well.

    Raises:
        UserError: A point is unknown, or there are none and words is off.
    """

    outputs = 1  # values per channel that are computed from a token
    pointless = False  # whether tokens have an effect without a point
    needs_spans = False  # whether it reads the annotated phrases of regions

    def __init__(
        self, shapes: dict[str, Shape], width: int, cross_layers: int, points: limits.Points = POINTS, words: bool = False
    ):
        super().__init__()
        known = sorted({p.split(".")[0] for p in shapes})
        unknown = [p for p in points if p not in (*known, OUT, ALL)]  # out is optional: only some backbones have it
        if unknown:
            raise UserError(f"injection.points={list(points)}: unknown {unknown}; known are {known}")
        if not points and not words and not self.pointless:
            raise UserError("injection.points=[]: region tokens have no effect; name some of "
                            f"{', '.join(known)}, or set injection.words=true")  # fmt: skip
        if words and not cross_layers:
            raise UserError(f"injection: {type(self).__name__} biases image-to-text attention, and that of this backbone "
                            "takes no bias; set injection.words=false, or take injection=tokens")  # fmt: skip
        self.shapes = {p: s for p, s in shapes.items() if ALL in points or p.split(".")[0] in points}
        self.out = nn.ModuleDict({_key(p): self._output(p, width, s[0]) for p, s in self.shapes.items()})
        self.attended = {p: s[1:] for p, s in shapes.items() if p != OUT}  # resolutions of the backbone
        self.gates = nn.Parameter(torch.zeros(cross_layers)) if words else None

    def forward(self, tokens: Tensor, state: RegionState, hint: dict[str, Tensor]) -> Injected:
        """Compute the change of the features at each injection point.

        Args:
            tokens: Region tokens, (B,N,R).
            state: The regions' soft masks and their attention to the text.
            hint: Injection point -> residual (B,C,h,w) of the sketch encoder.

        Returns:
            Residuals, which include the hint's, and modulations that are applied after them.
        """
        spread = {p: self._spread(p, tokens, state) for p in self.shapes}  # (B,C,h,w) each
        return Injected(hint | {p: hint[p] + added if p in hint else added for p, added in spread.items()})

    def words(self, state: RegionState) -> WordBias | None:
        """Compute the bias of image-to-text attention; None if `words` is off.

        It is log p(token | pixel) minus its maximum over tokens, and zero at pixels that no word describes.
        """
        if self.gates is None:
            return None
        attended = {state.sizes.get(p, size) for p, size in self.attended.items()}
        maps = {h * w: self._log_map(state.soft_masks[h, w], state) for h, w in attended}
        return WordBias(maps, self.gates)

    def appended(self, tokens: Tensor, state: RegionState) -> Appended | None:
        """Return the tokens that follow those of the text, for tokens (B,N,R) of these regions; None if there are none."""
        return None

    def _output(self, point: str, width: int, channels: int) -> nn.Module:
        return zero_module(nn.Linear(width, self.outputs * channels))

    def _spread(self, point: str, tokens: Tensor, state: RegionState) -> Tensor:
        """Project the tokens and spread them over their soft masks: (B,outputs C,h,w)."""
        masks = state.soft_masks[self._size(point, state)]
        values = self.out[_key(point)](tokens)  # (B,N,outputs C)
        return (values.transpose(1, 2) @ masks.flatten(2).to(values.dtype)).unflatten(2, masks.shape[2:])

    def _size(self, point: str, state: RegionState) -> tuple[int, int]:
        """Return (h,w) of the features at an injection point."""
        return state.sizes.get(point, self.shapes[point][1:])

    def _log_map(self, masks: Tensor, state: RegionState) -> Tensor:
        """Compute the bias (B,h w,T) for soft masks (B,N,h,w)."""
        p = masks.flatten(2).transpose(1, 2).float() @ state.region_text.float()  # (B,hw,T)
        log_map = (p + FLOOR).log()
        return log_map - log_map.amax(-1, keepdim=True)


class Film(Injection):
    """Scales and shifts the features at a region's pixels by its token (Perez et al. 2018, arXiv 1709.07871).

    Args:
        shapes: Injection point -> (C,h,w), traced at the training images' size (wiring).
        width: R, channels of a region token (wiring).
        cross_layers: Number of the backbone's layers with image-to-text attention (wiring).
        points: Prefixes of the injection points to use, such as [mid] or [down, mid], or [all].
        words: Whether to bias image-to-text attention as well.
    """

    outputs = 2

    def forward(self, tokens: Tensor, state: RegionState, hint: dict[str, Tensor]) -> Injected:
        """Compute a scale and a shift at each injection point.

        Args:
            tokens: Region tokens, (B,N,R).
            state: The regions' soft masks.
            hint: Injection point -> residual (B,C,h,w) of the sketch encoder.

        Returns:
            The hint's residuals, and modulations that are applied after them.
        """
        return Injected(hint, {p: self._film(self._spread(p, tokens, state)) for p in self.shapes})

    @staticmethod
    def _film(values: Tensor) -> Modulation:
        """Return the modulation by a scale and a shift, `values` (B,2C,h,w)."""
        scale, shift = values.chunk(2, dim=1)
        return lambda features: features * (1 + scale) + shift


class RegionCrossAttention(nn.Module):
    """Cross-attention from pixels to region tokens. Pixels far from any region attend to a null key only.

    The output starts at zero.

    Args:
        width: R, channels of a region token.
        channels: C, channels of the features.
        heads: Number of attention heads.
        slots: Number of keys and values per token.
    """

    def __init__(self, width: int, channels: int, heads: int, slots: int):
        super().__init__()
        self.heads, self.slots = heads, slots
        self.norm = nn.LayerNorm(channels)
        self.q = nn.Linear(channels, width)
        self.kv = nn.Linear(width, 2 * slots * width)
        self.null = nn.Parameter(torch.zeros(width))  # the null key, whose value is zero
        self.out = zero_module(nn.Linear(width, channels, bias=False))

    def forward(self, features: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """Attend to region tokens.

        Args:
            features: Feature map, (B,C,h,w).
            tokens: Region tokens, (B,N,R).
            bias: Bias of the logits, (B,hw,1+N), the null key first.

        Returns:
            (B,C,h,w).
        """
        pixels = features.flatten(2).transpose(1, 2)  # (B,hw,C)
        q = self.q(self.norm(pixels))  # (B,hw,R)
        k, v = self.kv(tokens).unflatten(-1, (2, self.slots, -1)).unbind(2)  # (B,N,slots,R)
        k = torch.cat([self.null.expand(len(k), 1, -1).to(k.dtype), k.flatten(1, 2)], 1)  # (B,1+N slots,R)
        v = F.pad(v.flatten(1, 2), (0, 0, 1, 0))  # (B,1+N slots,R)
        bias = torch.cat([bias[..., :1], bias[..., 1:].repeat_interleave(self.slots, -1)], -1)[:, None]
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B,heads,tokens,d)
        read = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=bias.to(q.dtype))  # (B,heads,hw,d)
        return self.out(read.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, features.shape[2:])


class Cross(Injection):
    """Gated cross-attention from pixels to region tokens, biased by the log of the regions' soft masks.

    At full resolution (`out`), where attention would cost more than the rest of the network, tokens are added instead.

    Args:
        shapes: Injection point -> (C,h,w), traced at the training images' size (wiring).
        width: R, channels of a region token (wiring).
        cross_layers: Number of the backbone's layers with image-to-text attention (wiring).
        points: Prefixes of the injection points to use, such as [mid] or [down, mid], or [all].
        words: Whether to bias image-to-text attention as well.
        heads: Number of attention heads.
        slots: Number of keys and values per token, so that a token can provide different values to different pixels.
        reach: Distance from a region, in pixels of the feature map, up to which pixels may attend to it.

    Raises:
        UserError: The settings are inconsistent.
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
        """Compute the attention at each injection point, and the residual at full resolution.

        Args:
            tokens: Region tokens, (B,N,R).
            state: The regions' soft masks.
            hint: Injection point -> residual (B,C,h,w) of the sketch encoder.

        Returns:
            Residuals, which include the hint's, and modulations that are applied after them.
        """
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
        """Compute the log of each pixel's closeness to each region, for soft masks (B,N,h,w) and real regions (B,N).

        Returns:
            (B,hw,1+N), the null key first.
        """
        side = 2 * self.reach + 1
        near = F.max_pool2d(masks.float(), side, stride=1, padding=self.reach) / 2  # the pixel's own region weighs most
        near = (near + masks.float() / 2).flatten(2).transpose(1, 2)  # (B,hw,N)
        bias = torch.where((near > 0) & real[:, None], near.clamp(min=FLOOR).log(), MASK_VALUE)
        return F.pad(bias, (1, 0), value=0.0)


def _key(point: str) -> str:
    """Return a valid module name for an injection point."""
    return point.replace(".", "_")
