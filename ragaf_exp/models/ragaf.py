"""Region-Adaptive Graph-Attention Fusion: regions attend to their neighbours and to the words.

Shapes: B batch, N regions, F node features, E edge features, R region width, T tokens, D text width, H heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.errors import UserError, at_least
from ragaf_exp.graph.backends.base import Backend, Edges
from ragaf_exp.models.conditioning import RegionState, Text

MASKED = -1e4  # far below any logit, and finite in half precision: a fully masked row stays free of NaN


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

    def __init__(self, width: int, text_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q, self.k = nn.Linear(width, width), nn.Linear(text_width, width, bias=False)  # as above
        self.v, self.out = nn.Linear(text_width, width), nn.Linear(width, width)
        self.null = nn.Parameter(torch.randn(text_width) * 0.02)

    def forward(self, x: Tensor, text: Text) -> tuple[Tensor, Tensor]:
        """x (B,N,R) -> what was read (B,N,R) and the attention to the tokens (B,N,T), mean over heads."""
        batch = x.shape[0]
        tokens = torch.cat([self.null.expand(batch, 1, -1).to(text.tokens.dtype), text.tokens], 1)  # (B,1+T,D)
        mask = F.pad(text.mask, (1, 0), value=True)  # the null token is always there
        q, k, v = (split_heads(y, self.heads) for y in (self.q(self.norm(x)), self.k(tokens), self.v(tokens)))
        logits = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])  # (B,H,N,1+T)
        attention = logits.masked_fill(~mask[:, None, None], MASKED).softmax(-1)
        read = self.out((attention.to(v.dtype) @ v).transpose(1, 2).flatten(-2))  # (B,N,R)
        return read, attention.mean(1)[..., 1:]


class FeedForward(nn.Sequential):
    """Pre-norm MLP, without its residual."""

    def __init__(self, width: int):
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Layer(nn.Module):
    """One exchange: with the neighbours, then with the caption. Structure and semantics stay apart for the fusion."""

    def __init__(self, width: int, heads: int, edge_features: int, text_width: int):
        super().__init__()
        self.graph = GraphAttention(width, heads, edge_features)
        self.text = RegionTextAttention(width, text_width, heads)
        self.structure_mlp, self.semantics_mlp = FeedForward(width), FeedForward(width)

    def forward(
        self, structure: Tensor, semantics: Tensor, edges: Edges, text: Text
    ) -> tuple[Tensor, Tensor, Tensor]:
        structure = self.graph(structure, edges)
        structure = structure + self.structure_mlp(structure)
        read, region_text = self.text(structure + semantics, text)
        semantics = semantics + read
        semantics = semantics + self.semantics_mlp(semantics)
        return structure, semantics, region_text


class Ragaf(nn.Module):
    """The region encoder, its layers, and the fusion of structure and semantics into one token per region.

    node_features F, edge_features E, hint_width, text_width D, fusion and backend are wiring; backend passes the
    messages between neighbours.
    width: R. layers: exchanges with neighbours and caption. frequencies: of the Fourier features of positions.
    """

    def __init__(
        self, node_features: int, edge_features: int, hint_width: int, text_width: int, fusion: nn.Module,
        backend: Backend, width: int = 128, layers: int = 2, heads: int = 4, frequencies: int = 4,
    ):  # fmt: skip
        super().__init__()
        at_least("ragaf", 1, width=width, layers=layers, heads=heads)
        at_least("ragaf", 0, frequencies=frequencies)
        if width % heads:
            raise UserError(f"ragaf.width={width}: must be a multiple of ragaf.heads={heads}")
        self.register_buffer("frequency", math.pi * 2.0 ** torch.arange(frequencies) / 2, persistent=False)
        self.geometry = nn.Linear(node_features * (1 + 2 * frequencies), width)
        self.pooled = nn.Linear(hint_width, width)
        self.encode_mlp = FeedForward(width)
        self.layers = nn.ModuleList(Layer(width, heads, edge_features, text_width) for _ in range(layers))
        self.fusion, self.backend = fusion, backend
        self.structure_norm, self.semantics_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.width = width

    def forward(
        self, nodes: Tensor, node_mask: Tensor, edges: Tensor, edge_mask: Tensor,
        soft_masks: dict[tuple[int, int], Tensor], hint: Tensor, text: Text,
    ) -> RegionState:  # fmt: skip
        """nodes (B,N,F), masks, edges (B,N,N,E), hint (B,hint_width,h,w) at a resolution of soft_masks."""
        angle = (nodes[..., None] * self.frequency).flatten(-2)  # (B,N,F frequencies)
        geometry = self.geometry(torch.cat([nodes, angle.sin(), angle.cos()], dim=-1))  # (B,N,R)
        structure = geometry + self.pooled(pool(hint, soft_masks[tuple(hint.shape[2:])]))
        structure = structure + self.encode_mlp(structure)
        semantics = torch.zeros_like(structure)
        listed = self.backend.lay_out(edges, edge_mask)
        for layer in self.layers:
            structure, semantics, region_text = layer(structure, semantics, listed, text)
        region_text = region_text * node_mask[..., None]
        return RegionState(structure, semantics, region_text, node_mask, soft_masks)

    def fuse(self, state: RegionState, t: Tensor) -> tuple[Tensor, Tensor]:
        """t (B,) in [0,1], 1 = pure noise -> region tokens (B,N,R) and fusion weights (B,N,2)."""
        weights = self.fusion(t, state.structure + state.semantics)
        sketch, text = weights.unbind(-1)
        tokens = sketch[..., None] * self.structure_norm(state.structure)
        tokens = tokens + text[..., None] * self.semantics_norm(state.semantics)
        return tokens * state.region_mask[..., None], weights


def pool(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of features (B,C,h,w) over each soft mask (B,N,h,w) -> (B,N,C); an empty mask gives zero."""
    weight = masks.flatten(2).to(features.dtype)  # (B,N,hw)
    total = weight @ features.flatten(2).transpose(1, 2)  # (B,N,C)
    return total / weight.sum(-1, keepdim=True).clamp(min=1e-3)
