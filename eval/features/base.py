"""Base class of feature networks: prepare a picture, embed a batch, choose the device, describe the figures."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.images import check_picture
from ragaf_exp.compute.device import pick_device
from ragaf_exp.core.errors import UserError

DEVICES = ("auto", "cpu", "cuda")


class Network(ABC):
    """Features float32 (B, dim) of pictures uint8 (H,W,3) of any size, independent of the batch they come in.

    Args:
        device: auto (CUDA if there is one), cpu or cuda.
    """

    name: str
    dim: int
    resize: str  # how pictures are brought to the network's size
    batch: int  # pictures per forward pass
    checksum: str  # sha256 of the weights

    def __init__(self, device: str = "auto") -> None:
        self.device = chosen_device(device)

    @abstractmethod
    def prepare(self, picture: np.ndarray) -> Tensor:
        """Preprocess uint8 (H,W,3) to the network's input, float32 (3,h,w). May run in a thread."""

    @abstractmethod
    def embed(self, batch: Tensor) -> Tensor:
        """Features (B, dim) of preprocessed pictures float32 (B,3,h,w) on the device."""

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Features float32 (B, dim). Raises UserError for a picture that is not uint8 (H,W,3)."""
        return self.features([self.prepare(check_picture(p, f"image {i}")) for i, p in enumerate(pictures)])

    def features(self, prepared: Sequence[Tensor]) -> np.ndarray:
        """Features float32 (B, dim) of preprocessed pictures. Raises UserError for NaN or infinity."""
        if not prepared:
            return np.zeros((0, self.dim), np.float32)
        alike = len({tuple(x.shape) for x in prepared}) == 1  # unresized pictures are embedded one by one
        stacks = [torch.stack(list(prepared))] if alike else [x[None] for x in prepared]
        features = np.concatenate([self._run(stack) for stack in stacks])
        if features.shape != (len(prepared), self.dim):
            raise UserError(f"{self.name}: gave features {features.shape}, not {(len(prepared), self.dim)}; "
                            "are its weights the right file?")  # fmt: skip
        if not np.isfinite(features).all():
            bad = int((~np.isfinite(features)).any(1).sum())
            raise UserError(f"{self.name}: features of {bad} images are NaN or infinite; fetch its weights again")
        return features

    def _run(self, stack: Tensor) -> np.ndarray:
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), exact:
            return self.embed(stack.to(self.device)).float().cpu().numpy()

    def facts(self) -> dict[str, str | int]:
        """Facts that metrics.json records with a figure of this network."""
        return {"network": self.name, "network_checksum": self.checksum, "dim": self.dim, "resize": self.resize}


def chosen_device(device: str) -> torch.device:
    """The device of that name; auto is CUDA if there is one. Raises UserError for another name and for missing CUDA."""
    if device not in DEVICES:
        raise UserError(f"device={device}: must be one of {', '.join(DEVICES)}")
    return pick_device(device)


def resized(picture: np.ndarray, side: int) -> np.ndarray:
    """Resize uint8 (H,W,3) to float32 (side,side,3) in 0 to 255, as clean-fid does (Parmar, Zhang, Zhu 2022).

    That is Pillow's antialiased bicubic filter without rounding in between.
    """
    if picture.shape[:2] == (side, side):
        return picture.astype(np.float32)
    planes = [Image.fromarray(picture[..., c].astype(np.float32)) for c in range(3)]
    planes = [np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC)) for plane in planes]
    return np.clip(np.stack(planes, -1), 0, 255)


def state_checksum(state: dict[str, Tensor]) -> str:
    """sha256 of named tensors: names, dtypes, shapes and values, independent of the file format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy())
    return digest.hexdigest()
