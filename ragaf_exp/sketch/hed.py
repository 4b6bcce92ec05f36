"""HED (Xie and Tu, "Holistically-nested edge detection", 2015), as retrained by ControlNet's authors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ragaf_exp.sketch.loading import library
from ragaf_exp.sketch.neural import Neural, mean_of_sides


class HED(Neural):
    """Soft, wide outlines of objects, from five depths of a VGG-like network. Arguments as for `Neural`."""

    FILE, REPO, DETECTOR = "ControlNetHED.pth", "lllyasviel/Annotators", "HEDdetector"

    def make(self, state: dict[str, Tensor]) -> nn.Module:
        return library("hed").ControlNetHED_Apache2()

    def network_of(self, detector: Any) -> nn.Module:
        return detector.netNetwork

    def edges(self, network: nn.Module, image: Tensor) -> Tensor:
        return mean_of_sides(network(255 * image), image)
