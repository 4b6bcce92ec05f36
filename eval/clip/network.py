"""An open_clip model as a feature network: images and captions to embeddings in one space."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from eval.clip.weights import CONFIG, MODEL, PRETRAINED, Source, find, hushed, library
from eval.features.base import Network
from eval.unavailable import Unavailable
from ragaf_exp.core.errors import UserError, between
from ragaf_exp.core.files import checksum
from ragaf_exp.core.tensors import brief, no_remote_code, weights_only

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Clip(Network):
    """Embeddings (B, dim) of images and of captions, not normalised.

    Images are preprocessed as open_clip does it for these weights; for most models that crops the central square. For
    weights from a file the model's name decides the activation: OpenAI's weights need ViT-B-32-quickgelu.

    Args:
        model: open_clip's name of an architecture.
        pretrained: A tag of the architecture, or a weights file (safetensors, or a file that torch.load reads with
            weights_only).
        config: JSON file of another architecture, in place of `model`.
        precision: fp32, bf16 or fp16.
        device: auto, cpu or cuda.
        batch: Number of images or captions per forward pass, 1 to 4096.

    Raises:
        Unavailable: If open_clip is not installed or the weights can't be downloaded.
        UserError: If a file is missing, damaged or belongs to another network.
    """

    def __init__(
        self, model: str = "ViT-B-32-quickgelu", pretrained: str = "openai", config: str = "", precision: str = "fp32",
        device: str = "auto", batch: int = 64,
    ) -> None:  # fmt: skip
        super().__init__(device)
        if precision not in DTYPES:
            raise UserError(f"eval.clip_precision={precision}: must be one of {', '.join(DTYPES)}")
        between("eval.clip_batch", batch, 1, 4096, 64)
        self.precision, self.batch = precision, batch
        source = find(model, pretrained, config)
        self.model, self.transform, self.tokenizer = _loaded(source, precision, str(self.device))
        self.checksum = checksum(source.weights)
        self.pretrained = source.label
        self._describe(source)

    def _describe(self, source: Source) -> None:
        prepared = self.model.visual.preprocess_cfg
        height, width = np.broadcast_to(prepared["size"], 2).tolist()
        self.resize = f"open_clip {prepared['resize_mode']} {prepared['interpolation']} {height}x{width}"
        self.mean = tuple(round(255 * value) for value in prepared["mean"])  # a colour that the network sees as zeros
        setup = [library().get_model_config(source.name), prepared, self.precision]
        known = sha256(repr(setup).encode()).hexdigest()[:8]  # two set-ups of one name never share cached features
        self.name = f"clip {source.name} {self.precision} {known}"
        with torch.inference_mode():
            self.dim = self.texts(["a"]).shape[1]

    def prepare(self, picture: np.ndarray) -> Tensor:
        return self.transform(Image.fromarray(picture))

    def embed(self, batch: Tensor) -> Tensor:
        return self.model.encode_image(batch.to(DTYPES[self.precision]))

    def images(self, pictures: Iterable[np.ndarray], total: int | None = None) -> np.ndarray:
        """Embeddings float32 (n, dim) of uint8 (H,W,3) pictures of any sizes, read one batch at a time.

        Raises UserError for another dtype or shape, and if the network returns NaN, as fp16 may.
        """
        total = len(pictures) if total is None and isinstance(pictures, Sequence) else total
        embeddings = []
        with tqdm(total=total, desc="CLIP", unit="image", disable=None, leave=False) as bar:
            for chunk in _chunks(pictures, self.batch):
                embeddings.append(self(chunk))
                bar.update(len(chunk))
        return np.concatenate([np.zeros((0, self.dim), np.float32), *embeddings])

    def texts(self, captions: Sequence[str]) -> np.ndarray:
        """Embeddings float32 (n, dim) of captions. Raises UserError if the network returns NaN."""
        embeddings = [self._embed_texts(chunk) for chunk in _chunks(captions, self.batch)]
        return np.concatenate(embeddings) if embeddings else np.zeros((0, self.dim), np.float32)

    def truncated(self, captions: Sequence[str]) -> int:
        """Number of captions that exceed the context length; the tokenizer truncates them silently."""
        if not captions:
            return 0
        longer = self.tokenizer.context_length + 1
        padding = self.tokenizer([""], context_length=longer)[0, -1]
        return int((self.tokenizer(list(captions), context_length=longer)[:, -1] != padding).sum())

    def facts(self) -> dict[str, Any]:
        """Facts that metrics.json records with a figure of this network."""
        return super().facts() | {"pretrained": self.pretrained, "precision": self.precision}

    def _embed_texts(self, captions: list[str]) -> np.ndarray:
        tokens = self.tokenizer(captions).to(self.device)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            embeddings = self.model.encode_text(tokens).float().cpu().numpy()
        if not np.isfinite(embeddings).all():
            raise UserError(f"{self.name}: embeddings of captions are NaN or infinite; take eval.clip_precision=fp32")
        return embeddings


def _chunks(things: Iterable, count: int) -> Iterator[list]:
    source = iter(things)
    while chunk := list(islice(source, count)):
        yield chunk


def _loaded(source: Source, precision: str, device: str) -> tuple[nn.Module, Callable, Callable]:
    """The network in evaluation mode, its preprocessing of PIL images, and its tokenizer."""
    clip = library()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    try:  # building a network initialises weights at random, which must not advance a run's generator
        with hushed(), no_remote_code(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = clip.create_model(source.name, precision=precision, device=device, pretrained_text=False,
                                        force_preprocess_cfg=source.preparation)  # fmt: skip
            prepare = image_transform_v2(PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)
            tokenizer = clip.get_tokenizer(source.name)
    except Exception as error:  # a wrong config or a tokenizer's failed download may raise any type
        if source.config:
            raise UserError(f"{CONFIG}={source.config}: open_clip can't build it ({brief(error)})") from error
        raise Unavailable(f"{MODEL}={source.name}: open_clip can't build it ({brief(error)})") from error
    _fill(network, source)
    return network.eval().requires_grad_(False), prepare, tokenizer


def _fill(network: nn.Module, source: Source) -> None:
    """Load the weights with open_clip's own function, which also converts older and third-party layouts."""
    try:  # open_clip passes weights_only, but retries without it after a TypeError
        with hushed(), weights_only():
            library().load_checkpoint(network, str(source.weights), weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{PRETRAINED}={source.weights}: holds more than tensors, or is damaged; it is not read; "
                        "save its state_dict as safetensors") from error  # fmt: skip
    except Exception as error:  # a damaged file may raise any type
        raise UserError(f"{PRETRAINED}={source.weights}: is damaged, or holds no weights of {source.name} "
                        f"({brief(error)}); fetch it again or name its model") from error  # fmt: skip
