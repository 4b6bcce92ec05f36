"""Regional prompting by an attention mask: the pixels of a region attend only to the words of that region.

This is the baseline for region tokens, as in EliGen (arXiv 2501.01097) and Regional-Prompting-FLUX (arXiv 2411.02395).
Here the words of a region are those that the region attends to, so no annotation is needed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.isolation import Isolation
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.conditioning import RegionState
from ragaf_exp.models.regions.injection import FLOOR, Injection

OWN = 0.5  # a word belongs to a region that attends to it at least half as much as to its first word


class WordMask(Injection):
    """Masks image-to-text attention, in UNets and in transformers.

    Args:
        shapes: Injection point -> (C,h,w) (wiring).
        width: R, channels of a region token (wiring).
        cross_layers: Number of layers that attend to the text (wiring).
        points: Injection points at which region tokens are added as well; none by default.
        hard: Whether to mask by each pixel's largest region only; otherwise by all of its regions, by their shares.
        share: Share of the layers that is masked, from the first, in (0,1].
        strength: Strength of the mask, which lowers logits by 6.9 times this; 0 = learned per layer, starting at zero.
        annotated: Whether the words of a region are those of its annotated phrase, in place of those that it attends to:
            an oracle, for data with annotation alone. A region without a phrase has the words of no phrase.
        isolate: Share of the blocks, from the first, in which image tokens of different regions do not attend to each other
            either, as in Seg2Any (arXiv 2506.00596), by the same strength; 0 = none. The background, tokens without a
            region and the text attend to all tokens, and all attend to them. A token belongs to its largest region.
            Regions do not overlap, so a nested one is isolated from that around it.

    Raises:
        UserError: strength, share or isolate is out of range, or a soft mask isolates.
    """

    layers: Tensor  # (cross_layers,) 1 where the mask applies

    def __init__(
        self, shapes: dict[str, Shape], width: int, cross_layers: int, points: limits.Points = (), hard: bool = True,
        share: limits.Part = 1.0, strength: limits.MaskStrength = 0.0, annotated: bool = False,
        isolate: limits.Share = 0.0,
    ):  # fmt: skip
        at_least("injection", 0, strength=strength)
        if not 0 < share <= 1:
            raise UserError(f"injection.share={share}: must be above 0 and at most 1")
        if not 0 <= isolate <= 1:
            raise UserError(f"injection.isolate={isolate}: must be from 0 to 1")
        if isolate and not hard:
            raise UserError(f"injection.isolate={isolate}: a token must belong to one region; set injection.hard=true or "
                            "injection.isolate=0")  # fmt: skip
        super().__init__(shapes, width, cross_layers, points, words=True)
        masked = torch.arange(cross_layers) < max(1, round(share * cross_layers))
        self.isolated = max(1, round(isolate * cross_layers)) if isolate else 0  # blocks
        self.register_buffer("layers", masked.float(), persistent=False)
        self.hard, self.strength, self.needs_spans = hard, strength, annotated
        if strength > 0:
            self.gates = None

    def words(self, state: RegionState) -> WordBias:
        """Compute the mask: 0 for words of the pixel's region, log FLOOR for others, 0 for pixels without a region."""
        attended = {state.sizes.get(p, size) for p, size in self.attended.items()}
        cells, own = {h * w: self._cells(state.soft_masks[h, w]) for h, w in attended}, self._own_words(state)
        maps = {pixels: self._log_mask(of_pixels, own) for pixels, of_pixels in cells.items()}
        strength = self.strength * torch.ones_like(self.layers) if self.gates is None else self.gates
        words = WordBias(maps, self.layers * strength)
        if not self.isolated:
            return words
        gates, log_own = math.log(FLOOR) * strength, own.clamp(min=FLOOR).log()
        return replace(words, isolation=Isolation(cells, _objects(state), gates, self.isolated, log_own, words.gates))

    def _cells(self, masks: Tensor) -> Tensor:
        """Return the regions of each pixel, (B,h w,N), for soft masks (B,N,h,w)."""
        cells = masks.flatten(2).transpose(1, 2).float()  # (B,hw,N)
        if self.hard:
            cells = (F.one_hot(cells.argmax(-1), cells.shape[-1]) * (cells.amax(-1, keepdim=True) > 0)).float()
        return cells

    @staticmethod
    def _log_mask(cells: Tensor, own: Tensor) -> Tensor:
        """Compute the mask (B,h w,T) for the regions of pixels (B,h w,N) and the words of regions (B,N,T)."""
        outside = (1 - cells.sum(-1, keepdim=True)).clamp(min=0)  # (B,hw,1): the share without a region
        return (cells @ own + outside).clamp(FLOOR, 1).log()

    def _own_words(self, state: RegionState) -> Tensor:
        """Return (B,N,T): 1 for the words of each region and for the start token."""
        own = self._phrases(state) if self.needs_spans else self._attended(state)
        own[..., 0] = True
        return own.float()

    def _attended(self, state: RegionState) -> Tensor:
        """Return (B,N,T) bool: the words that each region attends to at least half as much as to its first."""
        attention = state.region_text.float().detach()
        return attention >= OWN * attention.amax(-1, keepdim=True)

    def _phrases(self, state: RegionState) -> Tensor:
        """Return (B,N,T) bool: the words of each region's phrase; without one, those of no phrase."""
        if state.phrase_tokens is None:
            raise UserError("injection.annotated=true: reads the phrases of annotated items, and drawings have none; "
                            "evaluate this run, or sample from one without it")
        phrases = state.phrase_tokens
        return torch.where(phrases.any(-1, keepdim=True), phrases, ~phrases.any(1, keepdim=True))


def _objects(state: RegionState) -> Tensor:
    """Return (B,N): 1 for regions other than the background."""
    real = state.region_mask.float()
    return real if state.background is None else real * (1 - state.background)
