"""Losses of the regions' attention to the caption. Shapes: B batch, N regions, T tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.models.conditioning import Conditioning
from ragaf_exp.models.regions.contrast import words_of

PHRASE = 5  # tokens that speak of one thing: a word is covered where some region attends to it or to its neighbours
COVERED = 0.5  # with at least this probability
LEAST = 1e-4  # of a probability under a logarithm


def coverage(c: Conditioning) -> Tensor:
    """How far the caption's words fall short of being covered, 0 to 1; mean over items.

    Regions that attend to a phrase with probability a, independently, all miss it with prod (1 - a). Needs no
    annotation. Attention spread over all words covers them, so that this loss has its say beside `entropy`.
    """
    words, state = words_of(c.text), c.region_state
    phrase = F.avg_pool1d(state.region_text.float(), PHRASE, stride=1, padding=PHRASE // 2) * PHRASE  # (B,N,T)
    missed = (1 - phrase).clamp(min=0).prod(1)  # (B,T)
    short = (1 - (1 - missed) / COVERED).clamp(min=0) * words
    seen = state.region_mask.any(1)  # an item without regions can cover nothing
    return ((short.sum(1) / words.sum(1).clamp(min=1)) * seen).mean()


def entropy(c: Conditioning) -> Tensor:
    """Entropy of a region's attention over the words and nothing, in nats; mean over regions."""
    state = c.region_state
    p = state.region_text.float()
    p = torch.cat([1 - p.sum(-1, keepdim=True), p], dim=-1).clamp(min=LEAST)
    return over_regions(-(p * p.log()).sum(-1), state.region_mask)


def spans(c: Conditioning) -> Tensor:
    """-log of the attention that an annotated region gives to the words of its own phrase; mean over such regions."""
    assert c.phrase_tokens is not None, "only a batch with spans has this loss"
    own = (c.region_state.region_text.float() * c.phrase_tokens).sum(-1)  # (B,N)
    return over_regions(-own.clamp(min=LEAST).log(), c.phrase_tokens.any(-1) & c.region_state.region_mask)


def contrastive(alike: tuple[Tensor, Tensor], c: Conditioning) -> Tensor:
    """InfoNCE over the batch, mean of both directions (van den Oord et al. 2018, arXiv 1807.03748).

    alike: of models/contrast.py. Items without regions or without a caption take no part.
    """
    valid = _complete(c)
    place = torch.arange(len(valid), device=valid.device)
    losses = [F.cross_entropy(logits.masked_fill(~valid[None], MASK_VALUE), place, reduction="none") for logits in alike]
    return over_regions((losses[0] + losses[1]) / 2, valid)


def _complete(c: Conditioning) -> Tensor:
    return c.region_state.region_mask.any(1) & words_of(c.text).any(1)


def over_regions(values: Tensor, real: Tensor) -> Tensor:
    """Mean of those that are real; zero where none is."""
    return torch.where(real, values, 0).sum() / real.sum().clamp(min=1)
