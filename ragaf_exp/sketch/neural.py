"""What the neural extractors share: options, one lazily loaded network, borders, sizes, finishing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, between
from ragaf_exp.sketch.base import thinned, to_rgb
from ragaf_exp.sketch.loading import fill, from_hub, read_state

MULTIPLE = 16  # of both sides: what the deepest of the networks halves four times
MARGIN = 16  # mirrored picture around it: at the border of what they see, all of these networks find edges
LONGEST = 8  # times the resolution: how far a long thin picture may be scaled up
DEVICES = ("auto", "cpu", "cuda")


class Neural(ABC):
    """A network that finds edges; runs at the picture's own size, its answer as strokes in [0,1].

    weights: a file (.pth or .safetensors); "" takes the hub's.
    device: cpu, cuda, or auto, which takes CUDA where there is one and the caller is no loader's worker.
    resolution: the shorter side in pixels to which the network sees the picture scaled, at least 16; 0 = its own.
    safe_steps: soft edges e become floor(e (n + 1)) / n, cut off at 1, so that faint greys say nothing of the
        picture; 0 = as they are, 2 is ControlNet's "safe".
    threshold: edges from there on are exactly 1, others 0; 0 = soft.
    thin: strokes become lines one pixel wide; implies a threshold, of 0.5 where none is given.

    Nothing is imported, read or fetched before the first picture, and a copy sent to another process holds no network.
    """

    FILE: str  # the weights' usual name
    REPO: str  # where the hub has them
    DETECTOR: str  # controlnet_aux's class

    def __init__(
        self, weights: str = "", device: str = "auto", resolution: limits.Resolution = 0, safe_steps: limits.SafeSteps = 0,
        threshold: limits.Share = 0.0, thin: bool = False,
    ) -> None:  # fmt: skip
        if device not in DEVICES:
            raise UserError(f"sketch.device={device}: must be one of {', '.join(DEVICES)}")
        if resolution:
            between("sketch.resolution", resolution, 16, 4096, 512)
        between("sketch.safe_steps", safe_steps, 0, 255, 2)
        between("sketch.threshold", threshold, 0, 1, 0.5)
        self.weights, self.device, self.resolution = weights, device, resolution
        self.safe_steps, self.threshold, self.thin = safe_steps, threshold, thin
        self._network: nn.Module | None = None

    @abstractmethod
    def make(self, state: dict[str, Tensor]) -> nn.Module:
        """A freshly built network that fits these tensors."""

    @abstractmethod
    def taken(self, detector: Any) -> nn.Module:
        """The network inside controlnet_aux's detector."""

    @abstractmethod
    def edges(self, network: nn.Module, image: Tensor) -> Tensor:
        """RGB (1,3,H,W) in [0,1], sides multiples of 16 -> edges (1,1,H,W) in [0,1]."""

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """image (H,W,3), any dtype -> float32 (H,W) in [0,1], 1 = stroke. The drawing is not looked at.

        UserError where controlnet_aux or the weights are missing or damaged.
        """
        picture = to_rgb(image)
        height, width = picture.shape[:2]
        found = self._run(_resize(picture, *self._size(height, width)))
        return self._finish(np.clip(np.nan_to_num(_resize(found, height, width)), 0, 1))

    def network(self) -> nn.Module:
        """The loaded network, on its device."""
        if self._network is None:
            network = self._load().to(self._device(), memory_format=torch.channels_last)  # a third faster on a CPU
            self._network = network.eval().requires_grad_(False)
        return self._network

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}

    def _load(self) -> nn.Module:
        if not self.weights:
            return self.taken(from_hub(self.DETECTOR, self.REPO, self.FILE)).float()
        state = read_state(self.weights, self.FILE)
        with torch.random.fork_rng(devices=[]):  # building draws weights, and must not move a run's generator
            return fill(self.make(state), state, self.weights, self.FILE)

    def _device(self) -> torch.device:
        here = torch.cuda.is_available()
        if self.device == "cuda" and not here:
            raise UserError("sketch.device=cuda: PyTorch sees no CUDA device; take auto or cpu")
        if self.device == "cuda" and get_worker_info() is not None:
            raise UserError("sketch.device=cuda: loader workers can't share a device; take stage.workers=0 or cpu")
        return torch.device("cuda" if here and self.device != "cpu" and get_worker_info() is None else "cpu")

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if not self.resolution:
            return height, width
        scale = min(self.resolution / min(height, width), LONGEST * self.resolution / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _run(self, picture: np.ndarray) -> np.ndarray:
        """RGB (H,W,3) in [0,1] -> edges (H,W)."""
        height, width = picture.shape[:2]
        below, right = (MARGIN + -(side + 2 * MARGIN) % MULTIPLE for side in (height, width))
        padded = cv2.copyMakeBorder(picture, MARGIN, below, MARGIN, right, cv2.BORDER_REFLECT)
        network = self.network()
        device = next(network.parameters()).device
        x = torch.from_numpy(padded).permute(2, 0, 1)[None].to(device)  # channels last, as the network
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):  # sketches don't hang on who asks
            edges = self.edges(network, x)[0, 0].float().cpu().numpy()
        return edges[MARGIN : MARGIN + height, MARGIN : MARGIN + width]

    def _finish(self, edges: np.ndarray) -> np.ndarray:
        if self.safe_steps:
            edges = np.minimum(np.floor(edges * (self.safe_steps + 1)) / self.safe_steps, 1)
        if self.threshold or self.thin:
            edges = edges >= (self.threshold or 0.5)
        return (thinned(edges) if self.thin else edges).astype(np.float32)


def _resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H,W) or (H,W,3) to another size; the picture itself where it has it."""
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = height * width < picture.shape[0] * picture.shape[1]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def mean_of_sides(sides: list[Tensor], image: Tensor) -> Tensor:
    """Side outputs (1,1,h,w) as logits -> edges of the image's size: the mean logit's sigmoid."""
    same = [nn.functional.interpolate(s, image.shape[2:], mode="bilinear", align_corners=False) for s in sides]
    return torch.cat(same, 1).mean(1, keepdim=True).sigmoid()
