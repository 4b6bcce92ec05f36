"""Region-Adaptive Graph-Attention Fusion: regions attend to their neighbours and to the caption.

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

EDGE_USES = ("all", "bias", "none")


class GraphAttention(nn.Module):
    """Pre-norm multi-head attention over a region's neighbours. Edge features bias the logits and extend the values.

    Args:
        width: R, channels of a region.
        heads: Number of attention heads.
        edge_features: E, features per edge.
        edges: Where the edge features act, as in `Ragaf`.
    """

    def __init__(self, width: int, heads: int, edge_features: int, edges: str = "all"):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.edge_bias: nn.Module | None = None
        self.edge_value: nn.Module | None = None
        if edges != "none":
            # the softmax cancels a constant shift of a row's logits, so the last layer has no bias
            self.edge_bias = nn.Sequential(nn.Linear(edge_features, width), nn.SiLU(), nn.Linear(width, heads, bias=False))
        if edges == "all":
            self.edge_value = nn.Linear(heads * edge_features, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """Update regions x (B,N,R); returns (B,N,R). Regions without neighbours do not change."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B,N,H,R/H)
        features = edges.features  # (M,E)
        bias = features.new_zeros(len(features), self.heads) if self.edge_bias is None else self.edge_bias(features)
        y, edge_sums = edges.attend(q, k, v, bias)  # (B,N,R), (B,N,HE)
        if self.edge_value is not None:
            y = y + self.edge_value(edge_sums)
        return x + self.out(y) * edges.connected


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape (B,N,R) to (B,H,N,R/H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class RegionTextAttention(nn.Module):
    """Cross-attention from regions to the caption. Regions that no word describes can attend to a learned null token.

    Args:
        width: R, channels of a region.
        text_width: D, channels of a text token.
        heads: Number of attention heads.
        temperature: Divisor of the logits.
        learn_temperature: Whether each head learns a factor of the temperature, which starts at 1.
    """

    def __init__(self, width: int, text_width: int, heads: int, temperature: float = 1.0, learn_temperature: bool = False):
        super().__init__()
        self.heads, self.temperature = heads, temperature
        # log of each head's inverse temperature, relative to the fixed one
        self.log_sharpness = nn.Parameter(torch.zeros(heads)) if learn_temperature else None
        self.norm = nn.LayerNorm(width)
        self.q, self.k = nn.Linear(width, width), nn.Linear(text_width, width, bias=False)  # no bias, as above
        self.v, self.out = nn.Linear(text_width, width), nn.Linear(width, width)
        self.null = nn.Parameter(torch.randn(text_width) * 0.02)

    def forward(self, x: Tensor, text: Text, readable: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend to the caption.

        Args:
            x: Regions, (B,N,R).
            text: Encoded captions, (B,T,D).
            readable: (B,N,1+T) bool, the tokens that each region may attend to, the null token first; None = all.

        Returns:
            The attention output (B,N,R), and the attention to the tokens (B,N,T), the mean over heads.
        """
        batch = x.shape[0]
        tokens = torch.cat([self.null.expand(batch, 1, -1).to(text.tokens.dtype), text.tokens], 1)  # (B,1+T,D)
        mask = F.pad(text.mask, (1, 0), value=True)  # the null token is never masked
        q, k, v = (split_heads(y, self.heads) for y in (self.q(self.norm(x)), self.k(tokens), self.v(tokens)))
        logits = (q @ k.transpose(-1, -2)).float() / (self.temperature * math.sqrt(q.shape[-1]))  # (B,H,N,1+T)
        if self.log_sharpness is not None:
            logits = logits * self.log_sharpness.exp()[:, None, None]
        legible = mask[:, None, None] if readable is None else (mask[:, None] & readable)[:, None]
        attention = logits.masked_fill(~legible, MASK_VALUE).softmax(-1)
        read = self.out((attention.to(v.dtype) @ v).transpose(1, 2).flatten(-2))  # (B,N,R)
        return read, attention.mean(1)[..., 1:]


class FeedForward(nn.Sequential):
    """Pre-norm MLP without the residual connection."""

    def __init__(self, width: int):
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Layer(nn.Module):
    """Attention to the neighbours, then to the caption. Structure and semantics stay separate for the fusion.

    Args:
        width: R, channels of a region.
        heads: Number of attention heads.
        edge_features: E, features per edge.
        text_width: D, channels of a text token.
        temperature: Temperature of the attention to the caption.
        learn_temperature: Whether each head learns its temperature.
        edges: Where the edge features act, as in `Ragaf`.
    """

    def __init__(
        self, width: int, heads: int, edge_features: int, text_width: int, temperature: float, learn_temperature: bool,
        edges: str = "all",
    ):  # fmt: skip
        super().__init__()
        self.graph = GraphAttention(width, heads, edge_features, edges)
        self.text = RegionTextAttention(width, text_width, heads, temperature, learn_temperature)
        self.structure_mlp, self.semantics_mlp = FeedForward(width), FeedForward(width)

    def forward(
        self, structure: Tensor, semantics: Tensor, edges: Edges, text: Text, readable: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Update the regions.

        Args:
            structure: Geometry and hint features, (B,N,R).
            semantics: Caption features, (B,N,R).
            edges: Edges of the region graph.
            text: Encoded captions, (B,T,D).
            readable: (B,N,1+T) bool, the tokens that each region may attend to, the null token first; None = all.

        Returns:
            Structure (B,N,R), semantics (B,N,R), and the attention to the tokens (B,N,T).
        """
        structure = self.graph(structure, edges)
        structure = structure + self.structure_mlp(structure)
        read, region_text = self.text(structure + semantics, text, readable)  # (B,N,R), (B,N,T)
        semantics = semantics + read
        semantics = semantics + self.semantics_mlp(semantics)
        return structure, semantics, region_text


class TimeFilm(nn.Module):
    """Scales and shifts the region tokens depending on the timestep. It starts as the identity."""

    def __init__(self, width: int, frequencies: int = 8):
        super().__init__()
        self.waves = FourierTimeEmbedding(frequencies)
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), zero_module(nn.Linear(width, 2 * width)))

    def forward(self, tokens: Tensor, t: Tensor) -> Tensor:
        """Modulate region tokens (B,N,R) by timesteps t (B,) in [0,1]; returns (B,N,R)."""
        scale, shift = self.mlp(self.waves(t))[:, None].chunk(2, dim=-1)  # (B,1,R) each
        return tokens * (1 + scale) + shift


class Ragaf(nn.Module):
    """The region encoder, its attention layers, and the fusion of structure and semantics into one token per region.

    Args:
        node_features: F, features per region (wiring).
        edge_features: E, features per edge (wiring).
        hint_width: Channels of the hint features (wiring).
        hint_sizes: Resolutions (h,w) of the hint features of training images, from fine to coarse (wiring).
        text_width: D, channels of a text token (wiring).
        fusion: Module that computes the fusion weights (wiring).
        backend: Implementation of message passing between neighbours (wiring).
        width: R, channels of a region.
        layers: Number of layers, each with attention to neighbours and caption.
        heads: Number of attention heads.
        frequencies: Number of Fourier frequencies per node feature, 0 = none.
        pooled_levels: Number of hint resolutions at which regions pool features, from the finest; 0 = all.
        timestep: Whether the timestep scales and shifts the region tokens.
        temperature: Temperature of the regions' attention to the caption.
        learn_temperature: Whether each head learns its temperature, starting from this one.
        edges: Where the edge features act. all: on the attention's logits and values; bias: on the logits alone; none:
            nowhere, so that neighbours are a set (with graph=complete, a set transformer: Lee et al. 2019).

    Raises:
        UserError: The settings are inconsistent.
    """

    frequency: Tensor

    def __init__(
        self, node_features: int, edge_features: int, hint_width: int, hint_sizes: list[tuple[int, int]],
        text_width: int, fusion: nn.Module, backend: Backend, width: limits.Width = 128, layers: limits.Layers = 2,
        heads: limits.Heads = 4, frequencies: limits.FrequenciesOrNone = 4, pooled_levels: limits.Levels = 1,
        timestep: bool = False, temperature: limits.Temperature = 1.0, learn_temperature: bool = False,
        edges: str = "all",
    ):  # fmt: skip
        super().__init__()
        at_least("ragaf", 1, width=width, layers=layers, heads=heads)
        at_least("ragaf", 0, frequencies=frequencies, pooled_levels=pooled_levels)
        at_least("ragaf", 1e-3, temperature=temperature)
        if edges not in EDGE_USES:
            raise UserError(f"ragaf.edges={edges}: must be one of {', '.join(EDGE_USES)}")
        if pooled_levels > len(hint_sizes):
            raise UserError(f"ragaf.pooled_levels={pooled_levels}: this hint has {len(hint_sizes)} levels; take 0 for all")
        if width % heads:
            raise UserError(f"ragaf.width={width}: must be a multiple of ragaf.heads={heads}")
        self.register_buffer("frequency", math.pi * 2.0 ** torch.arange(frequencies) / 2, persistent=False)
        self.geometry = nn.Linear(node_features * (1 + 2 * frequencies), width)
        self.levels = hint_sizes[: pooled_levels or None]
        self.pooled = nn.Linear(hint_width * len(self.levels), width)
        self.encode_mlp = FeedForward(width)
        exchange = (width, heads, edge_features, text_width, temperature, learn_temperature, edges)
        self.layers = nn.ModuleList(Layer(*exchange) for _ in range(layers))
        self.fusion, self.backend = fusion, backend
        self.structure_norm, self.semantics_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.time = TimeFilm(width) if timestep else None
        self.width = width

    def forward(
        self, nodes: Tensor, node_mask: Tensor, edges: Tensor, edge_mask: Tensor,
        soft_masks: dict[tuple[int, int], Tensor], hint: list[Tensor], text: Text, readable: Tensor | None = None,
    ) -> RegionState:  # fmt: skip
        """Encode the regions of a batch.

        Args:
            nodes: Node features, (B,N,F).
            node_mask: (B,N) bool, True = a region.
            edges: Edge features, (B,N,N,E).
            edge_mask: (B,N,N) bool, True = an edge.
            soft_masks: (h,w) -> (B,N,h,w), the region's share of each pixel.
            hint: Hint features (B,hint_width,h,w) of each of `levels`.
            text: Encoded captions, (B,T,D).
            readable: (B,N,1+T) bool, the tokens that each region may attend to, the null token first; None = all.
        """
        angle = (nodes[..., None] * self.frequency).flatten(-2)  # (B,N,F frequencies)
        geometry = self.geometry(torch.cat([nodes, angle.sin(), angle.cos()], dim=-1))  # (B,N,R)
        pooled = [pool(x, soft_masks[x.shape[2], x.shape[3]]) for x in hint]  # (B,N,hint_width) each
        structure = geometry + self.pooled(torch.cat(pooled, dim=-1))
        structure = structure + self.encode_mlp(structure)
        semantics = torch.zeros_like(structure)
        listed = self.backend.lay_out(edges, edge_mask)
        maps = []
        for layer in self.layers:
            structure, semantics, region_text = layer(structure, semantics, listed, text, readable)
            maps.append(region_text)
        # the mean over layers: a region that attends to its words in one layer may attend to others in the next
        region_text = torch.stack(maps).mean(0) * node_mask[..., None]  # (B,N,T)
        return RegionState(structure, semantics, region_text, node_mask, soft_masks)

    def fuse(self, state: RegionState, t: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse structure and semantics at timesteps t (B,) in [0,1], 1 = pure noise.

        Importance extrapolates from the token of a region without text. Classifier-free guidance (Ho & Salimans 2022)
        does the same from the prediction without a caption; here it acts per region and needs no denoiser pass.

        Returns:
            Region tokens (B,N,R), and fusion weights (B,N,2), the mean over channels.
        """
        tokens, weights = self._fuse(state, t)
        if state.silent is not None:
            silent, _ = self._fuse(replace(state, semantics=state.silent), t)
            scale = state.importance_at(t)[..., None].to(tokens.dtype)
            tokens = torch.where(scale == 1, tokens, silent + scale * (tokens - silent))
        return tokens, weights

    def _fuse(self, state: RegionState, t: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.fusion(t, state.structure + state.semantics)  # (B,N,2) or (B,N,2,R)
        per_channel = weights if weights.ndim == 4 else weights[..., None]
        sketch, text = per_channel.unbind(2)  # (B,N,1 or R) each
        tokens = sketch * self.structure_norm(state.structure)
        tokens = tokens + text * self.semantics_norm(state.semantics)
        tokens = tokens if self.time is None else self.time(tokens, t)
        return tokens * state.region_mask[..., None], weights if weights.ndim == 3 else weights.mean(-1)
