"""clean-fid's Inception (Parmar, Zhang, Zhu 2022), with clean-fid's network wrapper, resizer and download."""

from __future__ import annotations

import importlib
import os
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from eval.features.base import Network
from eval.features.weights import downloading, named
from eval.unavailable import Unavailable
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum
from ragaf_exp.core.tensors import brief

FILE = "inception-2015-12-05.pt"
KEY = "eval.inception"
MODES = ("clean", "legacy_tensorflow")  # clean-fid's third, legacy_pytorch, is another network with other weights


def library(module: str) -> ModuleType:
    """A module of clean-fid. Raises Unavailable if it is not installed."""
    try:
        return importlib.import_module(f"cleanfid.{module}")
    except ImportError as error:
        raise Unavailable(f"{KEY}: FID needs clean-fid ({error}); pip install 'clean-fid>=0.1.35'") from error


class Inception(Network):
    """The 2015 Inception that FID is defined by (Heusel et al. 2017), 2,048 features.

    TorchScript is not pickle, but it is code: name only files that you trust.

    Args:
        weights: clean-fid's TorchScript file, or the folder that holds it; "" takes clean-fid's download, stored in
            torch.hub's folder.
        resize: clean-fid's resizing mode, clean or legacy_tensorflow.
        device: auto, cpu or cuda.

    Raises:
        Unavailable: If clean-fid is not installed or its weights can't be downloaded.
        UserError: If a named file is missing or is not this network.
    """

    name, dim, batch = "inception", 2048, 32

    def __init__(self, weights: str = "", resize: str = "clean", device: str = "auto") -> None:
        super().__init__(device)
        if resize not in MODES:
            raise UserError(f"eval.resize={resize}: must be one of {', '.join(MODES)}")
        self.resize = f"clean-fid {resize}"
        data, self.fid = library("utils"), library("fid")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.pictures = data.ResizeDataset([], mode=resize)
        path = named(weights, KEY, FILE) if weights else fetched()
        self.model = _loaded(path, resize == "legacy_tensorflow").to(self.device)
        self.checksum = checksum(path)
        self._try(path)

    def prepare(self, picture: np.ndarray) -> Tensor:
        """Preprocess as clean-fid's ResizeDataset does after reading a file: (3,h,w) in 0 to 255."""
        array = self.pictures.fn_resize(picture)
        tensor = self.pictures.transforms(np.array(array))
        return tensor * 255 if array.dtype == np.uint8 else tensor

    def embed(self, batch: Tensor) -> Tensor:
        return torch.from_numpy(self.fid.get_batch_features(batch, self.model, self.device))

    def _try(self, path: Path) -> None:
        """Embed one blank picture, so that a wrong network fails before the evaluation starts."""
        try:
            self(np.full((1, 299, 299, 3), 128, np.uint8))
        except UserError as error:
            raise UserError(f"{KEY}={path}: {error}") from error
        except Exception as error:  # TorchScript raises what its operators raise
            raise UserError(f"{KEY}={path}: is not clean-fid's Inception ({brief(error)}); it should be {FILE}") from error


def fetched() -> Path:
    """clean-fid's download, stored once it is known to be intact. Raises Unavailable if it fails."""
    helper = library("downloads_helper")
    target = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if target.is_file():
        return target
    with downloading(KEY, f"clean-fid's {FILE}", helper.inception_url):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            path = Path(helper.check_download_inception(fpath=folder))
            _loaded(path, False)
            os.replace(path, target)
    return target


def _loaded(path: Path, resize_inside: bool) -> torch.nn.Module:
    """clean-fid's wrapper around the file, which it expects under FILE in a folder. Raises UserError for another file."""
    wrapper = library("inception_torchscript").InceptionV3W
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated
        (Path(folder) / FILE).symlink_to(path.absolute())
        try:
            return wrapper(folder, download=False, resize_inside=resize_inside).eval().requires_grad_(False)
        except Exception as error:  # a file that is no TorchScript, is cut short, or holds another network
            raise UserError(f"{KEY}={path}: is not clean-fid's TorchScript Inception, or is damaged ({brief(error)}); "
                            f"it should be {FILE}") from error  # fmt: skip
