"""Similarity of a sketch's regions and captions, which the contrastive loss compares across a batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.models.conditioning import RegionState, Text


class Contrast(nn.Module):
    """Token-wise late interaction (FILIP: Yao et al. 2022, arXiv 2111.07783, eq. 4 and 5) of regions and words.

    Regions are compared by their structure, which does not depend on the caption. Their semantics do, and would leak it.

    Args:
        width: R, channels of a region.
        text_width: D, channels of a text token.
        shared: Width of the space in which both are compared.
    """

    def __init__(self, width: int, text_width: int, shared: int = 64):
        super().__init__()
        self.region = nn.Linear(width, shared)
        self.word = nn.Linear(text_width, shared)
        self.log_scale = nn.Parameter(torch.tensor([math.log(10.0)]))

    def forward(self, state: RegionState, text: Text) -> tuple[Tensor, Tensor]:
        """Compute the contrastive logits.

        Returns:
            The fit of regions of item i to caption j, and of caption i to regions of item j, both (B,B).
        """
        words = words_of(text)  # (B,T)
        region = F.normalize(self.region(state.structure), dim=-1)  # (B,N,shared)
        word = F.normalize(self.word(text.tokens), dim=-1)  # (B,T,shared)
        cosine = torch.einsum("ind,jtd->ijnt", region, word).float()  # (B,B,N,T)
        real = state.region_mask  # (B,N)
        best_word = cosine.masked_fill(~words[None, :, None], MASK_VALUE).amax(-1)  # (B,B,N)
        best_region = cosine.masked_fill(~real[:, None, :, None], MASK_VALUE).amax(2).transpose(0, 1)  # (B,B,T)
        scale = self.log_scale.exp()
        return scale * _mean(best_word, real[:, None]), scale * _mean(best_region, words[:, None])


def words_of(text: Text) -> Tensor:
    """Return (B,T) bool: all tokens of a caption except the start token."""
    return text.mask & (torch.arange(text.mask.shape[1], device=text.mask.device) > 0)


def _mean(x: Tensor, real: Tensor) -> Tensor:
    """Average x over the last dimension where `real` is True."""
    return (x * real).sum(-1) / real.sum(-1).clamp(min=1)
