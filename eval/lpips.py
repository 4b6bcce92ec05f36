"""LPIPS v0.1, the perceptual distance of an image to its reference (Zhang et al. 2018), by the lpips package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from eval.features.base import chosen_device, state_checksum
from eval.features.weights import downloading, read_state
from eval.images import check_picture
from eval.unavailable import Unavailable
from ragaf_exp.core.errors import UserError, between
from ragaf_exp.core.tensors import brief

NET, BACKBONE, HEADS = "eval.lpips_net", "eval.lpips_backbone", "eval.lpips_heads"
CACHED = 4 * 256**2  # pixels per batch on a CPU: larger batches exceed its cache, which halves the speed at 256x256
FILES = {  # torchvision's name of the weights, their file, and the smallest side that the network accepts
    "squeeze": ("SqueezeNet1_1_Weights", "squeezenet1_1-b8a52dc0.pth", 17),
    "alex": ("AlexNet_Weights", "alexnet-owt-7be5be79.pth", 31),
    "vgg": ("VGG16_Weights", "vgg16-397923af.pth", 16),
}


class Lpips:
    """Distances of images to their references: 0 for equal features, about 1 for unrelated images.

    Args:
        net: squeeze, alex (the package's default) or vgg; figures of different nets can't be compared.
        backbone: A file of the net's ImageNet weights in torchvision's layout; "" takes torchvision's download.
        heads: A file of LPIPS's linear weights, v0.1; "" takes those of the lpips package.
        device: auto, cpu or cuda.
        batch: Pairs per forward pass, 1 to 4096.

    Raises:
        Unavailable: If lpips or torchvision is not installed, or the backbone can't be downloaded.
        UserError: If a named file is missing, damaged or belongs to another network.
    """

    def __init__(
        self, net: str = "squeeze", backbone: str = "", heads: str = "", device: str = "auto", batch: int = 32
    ) -> None:
        if net not in FILES:
            raise UserError(f"{NET}={net}: must be one of {', '.join(FILES)}")
        between("eval.lpips_batch", batch, 1, 4096, 32)
        self.net, self.batch = net, batch
        self.device = chosen_device(device)
        trunk, linear = _backbone(net, backbone), _heads(net, heads)
        self.checksums = {"backbone": state_checksum(trunk), "heads": state_checksum(linear)}
        self.model = _built(net)
        _fill_backbone(self.model, trunk, f"{BACKBONE}={backbone or FILES[net][1]}", net)
        _fill_heads(self.model, linear, f"{HEADS}={heads or net}", net)
        self.model.eval().requires_grad_(False).to(self.device)

    def __call__(self, images: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> np.ndarray:
        """Distances float32 (B,) of pictures uint8 (H,W,3) of one size. Raises UserError for others."""
        if len(images) != len(references):
            raise ValueError(f"{len(images)} images for {len(references)} references")
        if not len(images):
            return np.zeros(0, np.float32)
        first, second = self._tensor(images, "image"), self._tensor(references, "reference")
        if first.shape != second.shape:
            raise UserError(f"LPIPS: images {_size(first)} and references {_size(second)} differ in size; resize one")
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), exact:
            distances = self.model(first.to(self.device), second.to(self.device)).flatten().cpu().numpy()
        if not np.isfinite(distances).all():
            raise UserError(f"LPIPS: {int((~np.isfinite(distances)).sum())} distances are NaN or infinite; "
                            f"are {BACKBONE} and {HEADS} whole files?")  # fmt: skip
        return distances

    def scores(
        self, images: Iterable[np.ndarray], references: Iterable[np.ndarray], total: int | None = None
    ) -> list[float]:
        """The distance of each pair.

        Args:
            images: (H,W,3) uint8 each, read once and in order; sizes may change from pair to pair.
            references: As many, of the same sizes.
            total: Number of pairs for the progress bar, if known.

        Raises:
            UserError: As `__call__` does.
        """
        distances: list[float] = []
        with tqdm(total=total, desc="LPIPS", unit="image", disable=None, leave=False) as bar:
            for batch in _batches(zip(images, references, strict=True), self._room):
                distances += map(float, self(*zip(*batch, strict=True)))
                bar.update(len(batch))
        return distances

    def in_holes(
        self, images: Iterable[np.ndarray], references: Iterable[np.ndarray], holes: Iterable[np.ndarray]
    ) -> list[float | None]:
        """The distance of each pair, averaged over the pixels of its hole.

        Args:
            images: (H,W,3) uint8 each.
            references: As many, of the same sizes.
            holes: (H,W) bool each, True = hole.

        Returns:
            Distances, as of the package's spatial maps; None for an empty hole.
        """
        self.model.spatial = True
        try:
            return [self._in_hole(*one) for one in zip(images, references, holes, strict=True)]
        finally:
            self.model.spatial = False

    def _in_hole(self, image: np.ndarray, reference: np.ndarray, hole: np.ndarray) -> float | None:
        if not hole.any():
            return None
        first, second = self._tensor([image], "image"), self._tensor([reference], "reference")
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            local = self.model(first.to(self.device), second.to(self.device))[0, 0].cpu().numpy()
        return float(local[hole].mean())

    def _room(self, shape: tuple[int, ...]) -> int:
        """Batch size for pictures of this shape."""
        pixels = max(1, int(np.prod(shape[:2])))
        return self.batch if self.device.type != "cpu" else max(1, min(self.batch, CACHED // pixels))

    def facts(self) -> dict[str, Any]:
        """Facts that metrics.json records with the figure."""
        return {"net": self.net, "version": "0.1", **{f"{k}_checksum": v for k, v in self.checksums.items()}}

    def _tensor(self, pictures: Sequence[np.ndarray], name: str) -> Tensor:
        """Stack pictures to float32 (B,3,H,W) in [-1, 1]."""
        checked = [check_picture(picture, f"LPIPS: {name} {i}") for i, picture in enumerate(pictures)]
        if len({picture.shape for picture in checked}) > 1:
            raise UserError(f"LPIPS: {name}s of different sizes in one batch; resize them, or give them one by one")
        height, width = checked[0].shape[:2]
        least = FILES[self.net][2]
        if min(height, width) < least:
            raise UserError(f"LPIPS: {name}s of {width}x{height} pixels are too small for {self.net}; "
                            f"it takes {least} and more")  # fmt: skip
        return torch.from_numpy(np.stack(checked)).permute(0, 3, 1, 2).float() / 127.5 - 1


def loss_network(net: str, backbone: str, heads: str) -> nn.Module:
    """LPIPS as a frozen module of two image batches (B,3,H,W) in [-1,1], through which gradients pass.

    Args:
        net: As of Lpips.
        backbone: As of Lpips.
        heads: As of Lpips.

    Raises:
        UserError: The weights are missing or unusable.
    """
    try:
        return Lpips(net, backbone, heads, "cpu").model
    except Unavailable as reason:
        raise UserError(f"task.perceptual: {reason}; name the files in task.lpips_backbone and task.lpips_heads, or set "
                        "task.perceptual=0") from reason  # fmt: skip


def _batches(pairs: Iterable[tuple[np.ndarray, np.ndarray]], room: Callable[[tuple[int, ...]], int]) -> Iterator[list]:
    """Batches of consecutive pairs of the same size, of at most room(shape) pairs."""
    batch: list = []
    for pair in pairs:
        shapes = [np.shape(picture) for picture in pair]
        if batch and (len(batch) >= room(shapes[0]) or shapes != [np.shape(picture) for picture in batch[0]]):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch


def _size(batch: Tensor) -> str:
    return f"of {batch.shape[3]}x{batch.shape[2]}"


def _package():
    try:
        import lpips
    except ImportError as error:
        raise Unavailable(f"{NET}: LPIPS needs the lpips package ({error}); pip install 'lpips>=0.1.4'") from error
    return lpips


def _built(net: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # building initialises weights at random
        warnings.simplefilter("ignore")  # lpips passes deprecated arguments to torchvision
        return _package().LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)


def _backbone(net: str, path: str) -> dict[str, Tensor]:
    member, file, _ = FILES[net]
    if path:
        return read_state(path, BACKBONE, file)
    try:
        from torchvision import models
    except ImportError as error:
        raise Unavailable(f"{NET}: LPIPS needs torchvision ({error}); pip install torchvision") from error
    weights = getattr(models, member).IMAGENET1K_V1
    with downloading(BACKBONE, f"torchvision's {file}", weights.url):
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)


def _heads(net: str, path: str) -> dict[str, Tensor]:
    shipped = Path(_package().__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    return read_state(path or str(shipped), HEADS, f"{net}.pth")


def _fill_backbone(model: nn.Module, state: dict[str, Tensor], what: str, net: str) -> None:
    """Load the backbone: lpips splits torchvision's network into slices but keeps the layers' numbers."""
    own = {key: "features." + key.split(".", 1)[1] for key in model.net.state_dict()}
    renamed = {key: state[name] for key, name in own.items() if name in state}
    _fill(model.net, renamed, what, f"torchvision's {FILES[net][1]}")


def _fill_heads(model: nn.Module, state: dict[str, Tensor], what: str, net: str) -> None:
    """Load the heads and require an exact match: lpips would silently load part of another net's file."""
    wanted = f"the {net}.pth of lpips v0.1"
    if set(state) != {f"lin{i}.model.1.weight" for i in range(len(model.lins))}:
        raise UserError(f"{what}: not the heads of this net; it should be {wanted}")
    _fill(model.lins, {key.removeprefix("lin"): value for key, value in state.items()}, what, wanted)


def _fill(part: nn.Module, state: dict[str, Tensor], what: str, wanted: str) -> None:
    try:
        part.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        raise UserError(f"{what}: not weights of this net ({brief(error)}); it should be {wanted}") from error
