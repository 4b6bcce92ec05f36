"""Region-Adaptive Graph-Attention Fusion: regions attend to their neighbours and to the words.

Shapes: B batch, N regions, F node features, E edge features, R region width, T tokens, D text width, H heads.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.graph.backends.base import Backend, Edges
from ragaf_exp.models.conditioning import RegionState, Text
from ragaf_exp.models.layers import zero_module
from ragaf_exp.models.regions.fusion import FourierTimeEmbedding
from ragaf_exp.models.regions.pooling import pool


class GraphAttention(nn.Module):
    """Pre-norm multi-head attention over a region's neighbours; edge features bias the logits and join the values."""

    def __init__(self, width: int, heads: int, edge_features: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        # what shifts all of a row's logits alike is lost in the softmax, so the last layer has no bias of its own
        self.edge_bias = nn.Sequential(nn.Linear(edge_features, width), nn.SiLU(), nn.Linear(width, heads, bias=False))
        self.edge_value = nn.Linear(heads * edge_features, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """x (B,N,R) -> (B,N,R); a node without neighbours is left as it is."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B,N,H,R/H)
        y, seen = edges.attend(q, k, v, self.edge_bias(edges.features))  # (B,N,R), (B,N,HE)
        return x + self.out(y + self.edge_value(seen)) * edges.connected


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B,N,R) -> (B,H,N,R/H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class RegionTextAttention(nn.Module):
    """Regions read the caption. A learned null token takes the regions that no word speaks of."""

    def __init__(self, width: int, text_width: int, heads: int, temperature: float = 1.0, learn_temperature: bool = False):
        super().__init__()
        self.heads, self.temperature = heads, temperature
        # of each head, relative to the fixed one
        self.log_sharpness = nn.Parameter(torch.zeros(heads)) if learn_temperature else None
        self.norm = nn.LayerNorm(width)
        self.q, self.k = nn.Linear(width, width), nn.Linear(text_width, width, bias=False)  # as above
        self.v, self.out = nn.Linear(text_width, width), nn.Linear(width, width)
        self.null = nn.Parameter(torch.randn(text_width) * 0.02)

    def forward(self, x: Tensor, text: Text, readable: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B,N,R) -> what was read (B,N,R) and the attention to the tokens (B,N,T), mean over heads.

        readable (B,N,1+T) bool: the tokens that each region may read, the null token first; None: all.
        """
        batch = x.shape[0]
        tokens = torch.cat([self.null.expand(batch, 1, -1).to(text.tokens.dtype), text.tokens], 1)  # (B,1+T,D)
        mask = F.pad(text.mask, (1, 0), value=True)  # the null token is always there
        q, k, v = (split_heads(y, self.heads) for y in (self.q(self.norm(x)), self.k(tokens), self.v(tokens)))
        logits = (q @ k.transpose(-1, -2)).float() / (self.temperature * math.sqrt(q.shape[-1]))  # (B,H,N,1+T)
        if self.log_sharpness is not None:
            logits = logits * self.log_sharpness.exp()[:, None, None]
        legible = mask[:, None, None] if readable is None else (mask[:, None] & readable)[:, None]
        attention = logits.masked_fill(~legible, MASK_VALUE).softmax(-1)
        read = self.out((attention.to(v.dtype) @ v).transpose(1, 2).flatten(-2))  # (B,N,R)
        return read, attention.mean(1)[..., 1:]


class FeedForward(nn.Sequential):
    """Pre-norm MLP, without its residual."""

    def __init__(self, width: int):
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Layer(nn.Module):
    """One exchange: with the neighbours, then with the caption. Structure and semantics stay apart for the fusion."""

    def __init__(
        self, width: int, heads: int, edge_features: int, text_width: int, temperature: float, learn_temperature: bool
    ):
        super().__init__()
        self.graph = GraphAttention(width, heads, edge_features)
        self.text = RegionTextAttention(width, text_width, heads, temperature, learn_temperature)
        self.structure_mlp, self.semantics_mlp = FeedForward(width), FeedForward(width)

    def forward(
        self, structure: Tensor, semantics: Tensor, edges: Edges, text: Text, readable: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        structure = self.graph(structure, edges)
        structure = structure + self.structure_mlp(structure)
        read, region_text = self.text(structure + semantics, text, readable)
        semantics = semantics + read
        semantics = semantics + self.semantics_mlp(semantics)
        return structure, semantics, region_text


class TimeFilm(nn.Module):
    """The timestep scales and shifts the region tokens; it starts by leaving them as they are."""

    def __init__(self, width: int, frequencies: int = 8):
        super().__init__()
        self.waves = FourierTimeEmbedding(frequencies)
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), zero_module(nn.Linear(width, 2 * width)))

    def forward(self, tokens: Tensor, t: Tensor) -> Tensor:
        """tokens (B,N,R), t (B,) in [0,1] -> (B,N,R)."""
        scale, shift = self.mlp(self.waves(t))[:, None].chunk(2, dim=-1)
        return tokens * (1 + scale) + shift


class Ragaf(nn.Module):
    """The region encoder, its layers, and the fusion of structure and semantics into one token per region.

    node_features F, edge_features E, hint_width, hint_sizes, text_width D, fusion and backend are wiring; hint_sizes
    are the resolutions (h,w) at which the hint has features of training images, from the finest; backend passes the
    messages between neighbours.
    width: R. layers: exchanges with neighbours and caption. frequencies: of the Fourier features of positions.
    pooled_levels: at how many of hint_sizes a region pools hint features, 0 = all. timestep: it scales and shifts the
    region tokens. temperature: of the regions' attention to the caption; learn_temperature: each head has its own,
    which starts there.
    """

    frequency: Tensor

    def __init__(
        self, node_features: int, edge_features: int, hint_width: int, hint_sizes: list[tuple[int, int]],
        text_width: int, fusion: nn.Module, backend: Backend, width: limits.Width = 128, layers: limits.Layers = 2,
        heads: limits.Heads = 4, frequencies: limits.FrequenciesOrNone = 4, pooled_levels: limits.Levels = 1,
        timestep: bool = False, temperature: limits.Temperature = 1.0, learn_temperature: bool = False,
    ):  # fmt: skip
        super().__init__()
        at_least("ragaf", 1, width=width, layers=layers, heads=heads)
        at_least("ragaf", 0, frequencies=frequencies, pooled_levels=pooled_levels)
        at_least("ragaf", 1e-3, temperature=temperature)
        if pooled_levels > len(hint_sizes):
            raise UserError(f"ragaf.pooled_levels={pooled_levels}: this hint has {len(hint_sizes)}; take 0 for all of them")
        if width % heads:
            raise UserError(f"ragaf.width={width}: must be a multiple of ragaf.heads={heads}")
        self.register_buffer("frequency", math.pi * 2.0 ** torch.arange(frequencies) / 2, persistent=False)
        self.geometry = nn.Linear(node_features * (1 + 2 * frequencies), width)
        self.levels = hint_sizes[: pooled_levels or None]
        self.pooled = nn.Linear(hint_width * len(self.levels), width)
        self.encode_mlp = FeedForward(width)
        exchange = (width, heads, edge_features, text_width, temperature, learn_temperature)
        self.layers = nn.ModuleList(Layer(*exchange) for _ in range(layers))
        self.fusion, self.backend = fusion, backend
        self.structure_norm, self.semantics_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.time = TimeFilm(width) if timestep else None
        self.width = width

    def forward(
        self, nodes: Tensor, node_mask: Tensor, edges: Tensor, edge_mask: Tensor,
        soft_masks: dict[tuple[int, int], Tensor], hint: list[Tensor], text: Text, readable: Tensor | None = None,
    ) -> RegionState:  # fmt: skip
        """nodes (B,N,F), masks, edges (B,N,N,E), hint: (B,hint_width,h,w) of each of `levels`, readable (B,N,1+T)."""
        angle = (nodes[..., None] * self.frequency).flatten(-2)  # (B,N,F frequencies)
        geometry = self.geometry(torch.cat([nodes, angle.sin(), angle.cos()], dim=-1))  # (B,N,R)
        pooled = [pool(x, soft_masks[x.shape[2], x.shape[3]]) for x in hint]
        structure = geometry + self.pooled(torch.cat(pooled, dim=-1))
        structure = structure + self.encode_mlp(structure)
        semantics = torch.zeros_like(structure)
        listed = self.backend.lay_out(edges, edge_mask)
        maps = []
        for layer in self.layers:
            structure, semantics, region_text = layer(structure, semantics, listed, text, readable)
            maps.append(region_text)
        # a region that has found its words in one layer is free to look elsewhere in the next
        region_text = torch.stack(maps).mean(0) * node_mask[..., None]  # (B,N,T)
        return RegionState(structure, semantics, region_text, node_mask, soft_masks)

    def fuse(self, state: RegionState, t: Tensor) -> tuple[Tensor, Tensor]:
        """t (B,) in [0,1], 1 = pure noise -> region tokens (B,N,R) and fusion weights (B,N,2), mean over channels.

        Importance extrapolates from the token of a region that reads nothing, as classifier-free guidance does from
        the prediction without a caption (Ho & Salimans 2022), but region by region and without the denoiser.
        """
        tokens, weights = self._fuse(state, t)
        if state.importance is not None and state.silent is not None:
            silent, _ = self._fuse(replace(state, semantics=state.silent), t)
            scale = state.importance[..., None].to(tokens.dtype)
            tokens = torch.where(scale == 1, tokens, silent + scale * (tokens - silent))
        return tokens, weights

    def _fuse(self, state: RegionState, t: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.fusion(t, state.structure + state.semantics)  # (B,N,2) or (B,N,2,R)
        each = weights if weights.ndim == 4 else weights[..., None]
        sketch, text = each.unbind(2)
        tokens = sketch * self.structure_norm(state.structure)
        tokens = tokens + text * self.semantics_norm(state.semantics)
        tokens = tokens if self.time is None else self.time(tokens, t)
        return tokens * state.region_mask[..., None], weights if weights.ndim == 3 else weights.mean(-1)
