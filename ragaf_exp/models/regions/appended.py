"""Region tokens as further tokens of the text, which image tokens attend to in the same softmax.

This is a baseline for adding region tokens to the features of their regions. It resembles the grounding tokens of GLIGEN
(Li et al. 2023, arXiv 2301.07093), but uses the layers of the text. Pixels learn which of the tokens is their region's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.conditioning import Appended, RegionState
from ragaf_exp.models.regions.injection import Injection

GAIN = 10.0  # of a gate over its parameter, as Adam moves a single number by no more than the learning rate per step


class AppendedTokens(Injection):
    """Projects region tokens to the width of the text and appends them, in UNets and in transformers.

    A layer with gate g computes a + g (b - a), where it computes a from the text alone, and b from text and regions in one
    softmax. Gates, one per layer, start at 0 and are learned.

    Args:
        shapes: Injection point -> (C,h,w) (wiring).
        width: R, channels of a region token (wiring).
        text_width: D, channels of a text token (wiring).
        cross_layers: Number of layers that attend to the text (wiring).
        points: Injection points at which region tokens are added as well; none by default.
        words: Whether to bias image-to-text attention as well. Region tokens get no bias.

    Raises:
        UserError: The attention of this backbone cannot take further tokens.
    """

    pointless = True

    def __init__(
        self, shapes: dict[str, Shape], width: int, text_width: int, cross_layers: int, points: limits.Points = (),
        words: bool = False,
    ):  # fmt: skip
        if not cross_layers:
            raise UserError("injection: AppendedTokens needs a gate in image-to-text attention, and that of this backbone "
                            "takes none; take injection=tokens")  # fmt: skip
        super().__init__(shapes, width, cross_layers, points, words)
        self.project = nn.Linear(width, text_width)
        self.open = nn.Parameter(torch.zeros(cross_layers))

    def appended(self, tokens: Tensor, state: RegionState) -> Appended:
        """Return the tokens that follow those of the text.

        Args:
            tokens: Region tokens, (B,N,R).
            state: The regions.
        """
        return Appended(self.project(tokens), state.region_mask, GAIN * self.open)
