"""torchvision's SqueezeNet 1.1 (Iandola et al. 2016) for fd_squeezenet, an alternative to Inception's larger weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from eval.features.base import Network, resized, state_checksum
from eval.features.weights import brief, downloading, read_state
from eval.unavailable import Unavailable
from ragaf_exp.core.errors import UserError

KEY, FILE = "eval.squeezenet", "squeezenet1_1-b8a52dc0.pth"
SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet statistics that torchvision trains with


class SqueezeNet(Network):
    """The 512 features of the last convolution, averaged over the picture.

    Args:
        weights: A .pth or .safetensors file in torchvision's layout, of any float type; "" takes torchvision's
            download.
        device: auto, cpu or cuda.

    Raises:
        Unavailable: If torchvision is not installed or its weights can't be downloaded.
        UserError: If a named file is missing, damaged or belongs to another network.
    """

    name, dim, batch = "squeezenet", 512, 64
    resize = f"bicubic {SIDE}"

    def __init__(self, weights: str = "", device: str = "auto") -> None:
        super().__init__(device)
        try:
            from torchvision import models
        except ImportError as error:
            raise Unavailable(f"{KEY}: fd_squeezenet needs torchvision ({error}); pip install torchvision") from error
        state = read_state(weights, KEY, FILE) if weights else _fetched(models.SqueezeNet1_1_Weights.IMAGENET1K_V1)
        self.checksum = state_checksum(state)
        with torch.random.fork_rng(devices=[]):  # random initial weights must not advance a run's generator
            network = models.squeezenet1_1(weights=None)
        try:
            network.load_state_dict({key: value.float() for key, value in state.items()})
        except RuntimeError as error:
            raise UserError(f"{KEY}={weights or FILE}: not weights of SqueezeNet 1.1 ({brief(error)}); it should be "
                            f"torchvision's {FILE}") from error  # fmt: skip
        layers = network.features.eval().requires_grad_(False)
        self.model: nn.Module = layers.to(self.device, memory_format=torch.channels_last)  # twice as fast on a CPU

    def prepare(self, picture: np.ndarray) -> Tensor:
        unit = (resized(picture, SIDE) / 255 - np.float32(MEAN)) / np.float32(STD)
        return torch.from_numpy(unit).permute(2, 0, 1).contiguous()

    def embed(self, batch: Tensor) -> Tensor:
        return self.model(batch).mean((2, 3))


def _fetched(weights) -> dict[str, Tensor]:
    with downloading(KEY, f"torchvision's {FILE}", weights.url):
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
