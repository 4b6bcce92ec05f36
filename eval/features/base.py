"""What every feature network shares: prepare a picture, embed a batch, on which device, and what its figures say."""

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
    """Pictures uint8 (H,W,3) of any size -> float32 features (B, dim). Same picture, same features, in any batch.

    name, dim: as they stand beside a figure. resize: how pictures come to the network's size. checksum: sha256 of its
    weights. batch: pictures at once. device: auto takes CUDA where there is one.
    """

    name: str
    dim: int
    resize: str
    batch: int
    checksum: str

    def __init__(self, device: str = "auto") -> None:
        self.device = chosen_device(device)

    @abstractmethod
    def prepare(self, picture: np.ndarray) -> Tensor:
        """uint8 (H,W,3) -> float32 (3,h,w) as the network takes it. May run in a thread."""

    @abstractmethod
    def embed(self, batch: Tensor) -> Tensor:
        """float32 (B,3,h,w) on the device -> features (B, dim)."""

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Features float32 (B, dim). UserError for a picture that is no uint8 (H,W,3)."""
        return self.features([self.prepare(check_picture(p, f"image {i}")) for i, p in enumerate(pictures)])

    def features(self, prepared: Sequence[Tensor]) -> np.ndarray:
        """Features float32 (B, dim) of prepared pictures. UserError where the network gives NaN or infinity."""
        if not prepared:
            return np.zeros((0, self.dim), np.float32)
        alike = len({tuple(x.shape) for x in prepared}) == 1  # what a mode leaves unresized goes one by one
        stacks = [torch.stack(list(prepared))] if alike else [x[None] for x in prepared]
        found = np.concatenate([self._run(stack) for stack in stacks])
        if found.shape != (len(prepared), self.dim):
            raise UserError(f"{self.name}: gave features {found.shape}, not {(len(prepared), self.dim)}; "
                            "are its weights the right file?")  # fmt: skip
        if not np.isfinite(found).all():
            bad = int((~np.isfinite(found)).any(1).sum())
            raise UserError(f"{self.name}: features of {bad} images are NaN or infinite; fetch its weights again")
        return found

    def _run(self, stack: Tensor) -> np.ndarray:
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), exact:
            return self.embed(stack.to(self.device)).float().cpu().numpy()

    def facts(self) -> dict[str, str | int]:
        """What stands beside a figure made with this network."""
        return {"network": self.name, "network_checksum": self.checksum, "dim": self.dim, "resize": self.resize}


def chosen_device(device: str) -> torch.device:
    """auto takes CUDA where there is one. UserError for another word, and for cuda where there is none."""
    if device not in DEVICES:
        raise UserError(f"device={device}: must be one of {', '.join(DEVICES)}")
    return pick_device(device)


def resized(picture: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H,W,3) -> float32 (side,side,3) in 0 to 255: Pillow's antialiased bicubic, not rounded between, as
    clean-fid resizes (Parmar, Zhang, Zhu 2022).
    """
    if picture.shape[:2] == (side, side):
        return picture.astype(np.float32)
    planes = [Image.fromarray(picture[..., c].astype(np.float32)) for c in range(3)]
    planes = [np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC)) for plane in planes]
    return np.clip(np.stack(planes, -1), 0, 255)


def state_checksum(state: dict[str, Tensor]) -> str:
    """sha256 of named tensors: names, shapes and values as stored, whatever file holds them."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy())
    return digest.hexdigest()
