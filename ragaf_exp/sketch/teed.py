"""TEED (Soria et al., "Tiny and efficient model for the edge detection generalization", 2023)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ragaf_exp.sketch.loading import library
from ragaf_exp.sketch.neural import Neural, mean_of_sides


class TEED(Neural):
    """Fine soft edges from a network of 58,000 parameters. Arguments as for `Neural`."""

    FILE, REPO, DETECTOR = "5_model.pth", "fal-ai/teed", "TEEDdetector"

    def make(self, state: dict[str, Tensor]) -> nn.Module:
        return library("teed.ted").TED()

    def network_of(self, detector: Any) -> nn.Module:
        return detector.model

    def edges(self, network: nn.Module, image: Tensor) -> Tensor:
        return mean_of_sides(network(255 * image), image)
