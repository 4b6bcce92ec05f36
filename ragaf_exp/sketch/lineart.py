"""Line art (Chan, Durand, Isola, "Learning to generate line drawings that convey geometry and semantics", 2022)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.sketch.loading import library
from ragaf_exp.sketch.neural import Neural

COARSE = "sk_model2.pth"


class LineArt(Neural):
    """Lines as an artist would draw them.

    Args:
        weights: As for `Neural`.
        device: As for `Neural`.
        resolution: As for `Neural`.
        safe_steps: As for `Neural`.
        threshold: As for `Neural`.
        thin: As for `Neural`.
        coarse: With weights="", use the hub's second model, which draws fewer and bolder lines.
    """

    FILE, REPO, DETECTOR = "sk_model.pth", "lllyasviel/Annotators", "LineartDetector"

    def __init__(
        self, weights: str = "", device: str = "auto", resolution: limits.Resolution = 0, safe_steps: limits.SafeSteps = 0,
        threshold: limits.Share = 0.0, thin: bool = False, coarse: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(weights, device, resolution, safe_steps, threshold, thin)
        self.coarse = coarse
        if coarse:
            self.FILE = COARSE

    def make(self, state: dict[str, Tensor]) -> nn.Module:
        blocks = len({key.split(".")[1] for key in state if key.startswith("model2.")})
        return library("lineart").Generator(3, 1, blocks)

    def network_of(self, detector: Any) -> nn.Module:
        return detector.model_coarse if self.coarse else detector.model

    def edges(self, network: nn.Module, image: Tensor) -> Tensor:
        return 1 - network(image)  # the network's output is 1 for paper
