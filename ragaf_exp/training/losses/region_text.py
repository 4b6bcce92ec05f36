"""Losses on the attention of regions to the caption. Shapes: B batch, N regions, T tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.models.conditioning import Conditioning
from ragaf_exp.models.regions.contrast import words_of

PHRASE = 5  # tokens of a phrase: a word is covered if some region attends to it or to its neighbours
COVERED = 0.5  # with at least this probability
LEAST = 1e-4  # lower bound of a probability in a logarithm


def coverage(c: Conditioning) -> Tensor:
    """Average shortfall in coverage of the caption's words, 0 to 1; mean over items. Needs no annotation.

    If regions attend to a phrase independently with probabilities a, all of them miss it with probability prod (1 - a).
    Attention spread evenly over all words covers them too, so this loss should be combined with `entropy`.
    """
    words, state = words_of(c.text), c.region_state
    phrase = F.avg_pool1d(state.region_text.float(), PHRASE, stride=1, padding=PHRASE // 2) * PHRASE  # (B,N,T)
    missed = (1 - phrase).clamp(min=0).prod(1)  # (B,T)
    short = (1 - (1 - missed) / COVERED).clamp(min=0) * words
    has_regions = state.region_mask.any(1)  # an item without regions cannot cover any word
    return ((short.sum(1) / words.sum(1).clamp(min=1)) * has_regions).mean()


def entropy(c: Conditioning) -> Tensor:
    """Entropy of a region's attention over the tokens and the null token, in nats; mean over regions."""
    state = c.region_state
    p = state.region_text.float()
    p = torch.cat([1 - p.sum(-1, keepdim=True), p], dim=-1).clamp(min=LEAST)
    return over_regions(-(p * p.log()).sum(-1), state.region_mask)


def spans(c: Conditioning) -> Tensor:
    """-log of the attention of an annotated region to the words of its phrase; mean over annotated regions."""
    state = c.region_state
    assert state.phrase_tokens is not None, "this loss needs a batch with spans"
    own = (state.region_text.float() * state.phrase_tokens).sum(-1)  # (B,N)
    return over_regions(-own.clamp(min=LEAST).log(), state.phrase_tokens.any(-1) & state.region_mask)


def contrastive(alike: tuple[Tensor, Tensor], c: Conditioning) -> Tensor:
    """InfoNCE over the batch, mean of both directions (van den Oord et al. 2018, arXiv 1807.03748).

    alike: logits of both directions, (B,B). Items without regions or without a caption are ignored.
    """
    valid = _complete(c)
    labels = torch.arange(len(valid), device=valid.device)
    losses = [F.cross_entropy(logits.masked_fill(~valid[None], MASK_VALUE), labels, reduction="none") for logits in alike]
    return over_regions((losses[0] + losses[1]) / 2, valid)


def _complete(c: Conditioning) -> Tensor:
    return c.region_state.region_mask.any(1) & words_of(c.text).any(1)


def over_regions(values: Tensor, real: Tensor) -> Tensor:
    """Mean over real regions; zero if there are none."""
    return torch.where(real, values, 0).sum() / real.sum().clamp(min=1)
