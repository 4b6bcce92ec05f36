"""PiDiNet (Su et al., "Pixel difference networks for efficient edge detection", 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.sketch.loading import library
from ragaf_exp.sketch.neural import Neural

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of its training images
KERNELS = "carv4"  # central, angular, radial differences and plain convolution in turn, as in the paper's table 5
STEM, RADIAL, DILATION, ATTENTION = (
    "init_block.weight", "block1_2.conv1.weight", "dilations.0.conv1.weight", "attentions.0.conv1.weight",
)  # fmt: skip


class PiDiNet(Neural):
    """Outlines of objects, at a fraction of HED's cost. Arguments as for `Neural`.

    Any model of the paper's table 5 loads (table5_pidinet, -small, -tiny, each with or without attention and
    dilation), as trained or converted to plain convolutions; the weights' shapes determine which one it is.
    """

    FILE, REPO, DETECTOR = "table5_pidinet.pth", "lllyasviel/Annotators", "PidiNetDetector"

    def make(self, state: dict[str, Tensor]) -> nn.Module:
        if STEM not in state or RADIAL not in state:
            raise UserError(f"sketch.weights={self.weights}: not PiDiNet's; it should be a {self.FILE}")
        model = library("pidi.model")
        converted = state[RADIAL].shape[-1] == 5  # a radial difference becomes a plain kernel of 5x5
        kernels = list(model.nets[KERNELS].values()) if converted else model.config_model(KERNELS)
        dilation = state[DILATION].shape[0] if DILATION in state else None
        return model.PiDiNet(state[STEM].shape[0], kernels, dilation, ATTENTION in state, converted)

    def network_of(self, detector: Any) -> nn.Module:
        return detector.netNetwork

    def edges(self, network: nn.Module, image: Tensor) -> Tensor:
        # as in training; controlnet_aux omits the normalisation and swaps red and blue, which loses detail
        mean, deviation = (torch.tensor(v, device=image.device).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
        return network((image - mean) / deviation)[-1]
