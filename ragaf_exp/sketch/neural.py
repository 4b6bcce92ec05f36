"""Base of the neural extractors: options, a lazily loaded network, padding, resizing, post-processing."""

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

MULTIPLE = 16  # sides are padded to multiples of this, as the deepest of the networks halves them four times
MARGIN = 16  # pixels of mirrored padding: all of these networks produce false edges at the border of their input
LONGEST = 8  # largest longer side of the scaled picture, relative to the resolution
DEVICES = ("auto", "cpu", "cuda")


class Neural(ABC):
    """Edge detection by a network, with strokes in [0,1].

    Nothing is imported, read or downloaded before the first picture, and a pickled copy holds no network.

    Args:
        weights: A file (.pth or .safetensors); "" uses the hub's.
        device: cpu, cuda, or auto, which uses CUDA if available, except in a loader's worker.
        resolution: Shorter side in pixels to which the network's input is scaled, at least 16; 0 = unscaled.
        safe_steps: Number n of grey levels to which soft edges e are quantised, as floor(e (n + 1)) / n clipped to 1,
            so that faint greys carry no information about the picture; 0 = none, 2 is ControlNet's "safe".
        threshold: Edges from this value on become 1, others 0; 0 = soft.
        thin: Thin strokes to lines one pixel wide; implies a threshold, 0.5 if none is given.
    """

    FILE: str  # the weights' usual name
    REPO: str  # their repository on the hub
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
        """Build a network that fits these tensors."""

    @abstractmethod
    def network_of(self, detector: Any) -> nn.Module:
        """Return the network inside controlnet_aux's detector."""

    @abstractmethod
    def edges(self, network: nn.Module, image: Tensor) -> Tensor:
        """Detect edges (1,1,H,W) in [0,1] in RGB (1,3,H,W) in [0,1], whose sides are multiples of 16."""

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """Extract from image (H,W,3), any dtype, a sketch (H,W) float32 in [0,1], 1 = stroke; the drawing is ignored.

        Raises UserError if controlnet_aux or the weights are missing or damaged.
        """
        picture = to_rgb(image)
        height, width = picture.shape[:2]
        edges = self._run(_resize(picture, *self._size(height, width)))
        return self._finish(np.clip(np.nan_to_num(_resize(edges, height, width)), 0, 1))

    def network(self) -> nn.Module:
        """Return the network on its device, loaded at the first call."""
        if self._network is None:
            network = self._load().to(self._device(), memory_format=torch.channels_last)  # a third faster on a CPU
            self._network = network.eval().requires_grad_(False)
        return self._network

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}

    def _load(self) -> nn.Module:
        if not self.weights:
            return self.network_of(from_hub(self.DETECTOR, self.REPO, self.FILE)).float()
        state = read_state(self.weights, self.FILE)
        with torch.random.fork_rng(devices=[]):  # building samples weights, and must not advance a run's generator
            return fill(self.make(state), state, self.weights, self.FILE)

    def _device(self) -> torch.device:
        available = torch.cuda.is_available()
        if self.device == "cuda" and not available:
            raise UserError("sketch.device=cuda: PyTorch sees no CUDA device; take auto or cpu")
        if self.device == "cuda" and get_worker_info() is not None:
            raise UserError("sketch.device=cuda: loader workers can't share a device; take stage.workers=0 or cpu")
        return torch.device("cuda" if available and self.device != "cpu" and get_worker_info() is None else "cpu")

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if not self.resolution:
            return height, width
        scale = min(self.resolution / min(height, width), LONGEST * self.resolution / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _run(self, picture: np.ndarray) -> np.ndarray:
        """Detect edges (H,W) in RGB (H,W,3) in [0,1]."""
        height, width = picture.shape[:2]
        below, right = (MARGIN + -(side + 2 * MARGIN) % MULTIPLE for side in (height, width))
        padded = cv2.copyMakeBorder(picture, MARGIN, below, MARGIN, right, cv2.BORDER_REFLECT)
        network = self.network()
        device = next(network.parameters()).device
        x = torch.from_numpy(padded).permute(2, 0, 1)[None].to(device)  # channels last, like the network
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):  # independent of the caller's autocast
            edges = self.edges(network, x)[0, 0].float().cpu().numpy()
        return edges[MARGIN : MARGIN + height, MARGIN : MARGIN + width]

    def _finish(self, edges: np.ndarray) -> np.ndarray:
        if self.safe_steps:
            edges = np.minimum(np.floor(edges * (self.safe_steps + 1)) / self.safe_steps, 1)
        if self.threshold or self.thin:
            edges = edges >= (self.threshold or 0.5)
        return (thinned(edges) if self.thin else edges).astype(np.float32)


def _resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H,W) or (H,W,3); returns the picture itself if it has this size."""
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = height * width < picture.shape[0] * picture.shape[1]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def mean_of_sides(sides: list[Tensor], image: Tensor) -> Tensor:
    """Combine side outputs, logits (1,1,h,w), to edges of the image's size: the sigmoid of their mean."""
    same = [nn.functional.interpolate(s, image.shape[2:], mode="bilinear", align_corners=False) for s in sides]
    return torch.cat(same, 1).mean(1, keepdim=True).sigmoid()
