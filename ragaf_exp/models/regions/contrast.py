"""Whether a sketch's regions and a caption belong together: what the contrastive loss compares over a batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.models.conditioning import RegionState, Text


class Contrast(nn.Module):
    """Token-wise late interaction (FILIP: Yao et al. 2022, arXiv 2111.07783, eq. 4 and 5), of regions and words.

    Regions are compared by their structure, which has not seen the caption: what has read it would know the answer.
    width: R, text_width: D, shared: width of the space they are compared in.
    """

    def __init__(self, width: int, text_width: int, shared: int = 64):
        super().__init__()
        self.region = nn.Linear(width, shared)
        self.word = nn.Linear(text_width, shared)
        self.log_scale = nn.Parameter(torch.tensor([math.log(10.0)]))

    def forward(self, state: RegionState, text: Text) -> tuple[Tensor, Tensor]:
        """-> how well regions of item i fit caption j, and caption i fits regions of item j, both (B,B)."""
        words = words_of(text)  # (B,T)
        region, word = F.normalize(self.region(state.structure), dim=-1), F.normalize(self.word(text.tokens), dim=-1)
        alike = torch.einsum("ind,jtd->ijnt", region, word).float()  # (B,B,N,T)
        real = state.region_mask
        best_word = alike.masked_fill(~words[None, :, None], MASK_VALUE).amax(-1)  # (B,B,N)
        best_region = alike.masked_fill(~real[:, None, :, None], MASK_VALUE).amax(2).transpose(0, 1)  # (B,B,T)
        scale = self.log_scale.exp()
        return scale * _mean(best_word, real[:, None]), scale * _mean(best_region, words[:, None])


def words_of(text: Text) -> Tensor:
    """(B,T) bool: tokens but the first, which opens every caption."""
    return text.mask & (torch.arange(text.mask.shape[1], device=text.mask.device) > 0)


def _mean(x: Tensor, real: Tensor) -> Tensor:
    return (x * real).sum(-1) / real.sum(-1).clamp(min=1)
