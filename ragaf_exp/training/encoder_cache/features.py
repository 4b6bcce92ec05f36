"""Cached features of frozen encoders: computes them, stores them, and adds them to batches.

The key of a latent is the content of the image, so that mirrored and cropped images have separate entries. The key of
text features is the caption, with the edited image for encoders that read it. The name of a folder depends on the
encoder's weights and settings, the size and the version of the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.tensors import to_uint8
from ragaf_exp.core.types import Batch, Example
from ragaf_exp.data.loader import collate
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.inputs import ALL, Inputs
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.store.records import MAGIC, Records, key_of, no_op

EMPTY = ""  # caption of an item whose text is dropped


class Latents:
    """Latents of images by a frozen codec, with separate records for each image size.

    Args:
        root: The cache folder.
        codec: The frozen codec.
        size: Height and width of square images.
        on_write: Called when records have been written.
    """

    def __init__(self, root: Path, codec: Codec, size: int, on_write: Callable[[], None] = no_op):
        self.codec, self.root, self.on_write = codec, root, on_write
        self.by_size: dict[tuple[int, int], Records] = {}
        self.records = self.of_size(size, size)

    def of_size(self, height: int, width: int) -> Records:
        """The records of images of this size."""
        if (height, width) not in self.by_size:
            shape = (self.codec.channels, height // self.codec.downscale, width // self.codec.downscale)
            size = height if height == width else [height, width]
            about = {"kind": "latent", "by": self.codec.fingerprint, "size": size}
            self.by_size[height, width] = _records(self.root, about, {"latent": ("<f4", shape)}, self.on_write)
        return self.by_size[height, width]

    def every(self) -> list[Records]:
        """The records of all sizes."""
        return list(self.by_size.values())

    def has(self, image: np.ndarray) -> bool:
        """Whether the latent of an image (H,W,3) uint8 is stored."""
        return key_of(image) in self.of_size(*image.shape[:2])

    @torch.no_grad()
    def compute(self, images: list[np.ndarray], device: torch.device) -> None:
        """Encode and store images one by one, since the rounding of kernels may depend on the batch size."""
        for image in images:
            pixels = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).to(device).float() / 127.5 - 1
            latent = self.codec.encode(pixels)[0].float().cpu().numpy()
            self.of_size(*image.shape[:2]).write(key_of(image), {"latent": latent})

    def of(self, images: Iterable[np.ndarray]) -> torch.Tensor:
        """Stored latents (B,C,h,w) of images of one size."""
        latents = [self.of_size(*image.shape[:2]).read(key_of(image))["latent"] for image in images]
        return torch.from_numpy(np.stack(latents))


class Texts:
    """Text features of captions by a frozen encoder.

    Args:
        root: The cache folder.
        text: The frozen encoder.
        on_write: Called when records have been written.
        sample: An edited image (1,3,H,W) of the training size, for encoders that read images.
    """

    def __init__(
        self, root: Path, text: TextEncoder, on_write: Callable[[], None] = no_op, sample: torch.Tensor | None = None
    ):
        self.text: TextEncoder | None = text
        self.reads_image = text.reads_image
        with torch.no_grad():
            shape = _arrays(text.read([EMPTY], None, sample))
        layout = {name: (array.dtype.str, array.shape) for name, array in shape.items()}
        self.records = _records(root, {"kind": "text", "by": text.fingerprint}, layout, on_write)
        self.records.refresh()

    def every(self) -> list[Records]:
        """The records as a list, like `Latents.every`."""
        return [self.records]

    @torch.no_grad()
    def compute(self, captions: list[str], image: torch.Tensor | None = None) -> None:
        """Encode and store captions that have no entry. image: the image (1,3,H,W) that all of them edit."""
        assert self.text is not None, "captions are encoded before the encoder is dropped"
        for caption in captions:
            if (key := _key(caption, None if image is None else to_uint8(image)[0])) not in self.records:
                self.records.write(key, _arrays(self.text.read([caption], None, image)))

    def of(self, captions: list[str], images: torch.Tensor | None = None) -> Text:
        """Stored features of captions. images: the images (B,3,H,W) that they edit, for encoders that read them."""
        pictures = [None] * len(captions) if images is None else list(to_uint8(images))
        rows = [self.records.read(_key(caption, one)) for caption, one in zip(captions, pictures, strict=True)]
        tensors: dict[str, Any] = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        return Text(**tensors)


@dataclass(frozen=True)
class CacheUse:
    """Which encoders' outputs training reads from the cache."""

    latents: bool = False
    texts: bool = False


class Featured:
    """Collates examples to a batch with cached features.

    Args:
        latents: Stored latents, or None.
        texts: Stored text features, or None.
        inputs: The task's inputs, for text features that depend on the edited image.
    """

    def __init__(self, latents: Latents | None, texts: Texts | None, inputs: Inputs | None = None):
        self.latents, self.texts, self.inputs = latents, texts, inputs

    @property
    def use(self) -> CacheUse:
        return CacheUse(self.latents is not None, self.texts is not None)

    def __call__(self, examples: list[Example], spans: bool = False) -> Batch:
        batch = collate(examples, spans)
        try:
            if self.latents is not None:
                batch = replace(batch, latent=self.latents.of(e.item.image for e in examples))
            if self.texts is not None:
                batch = self._with_text(batch, self.texts)
        except KeyError as error:
            for kind in (self.latents, self.texts):
                for records in () if kind is None else kind.every():
                    records.forget()
            raise UserError(f"{batch.keys}: changed on disk during training; the same command recomputes the "
                            "features and continues") from error  # fmt: skip
        return batch

    def _with_text(self, batch: Batch, texts: Texts) -> Batch:
        """Add the features of the captions, and those of the empty caption, one per item if they depend on an image."""
        source = self.inputs.source(batch, ALL) if self.inputs is not None and texts.reads_image else None
        if source is None:
            return replace(batch, text=texts.of(batch.captions), no_text=texts.of([EMPTY]))
        empty = texts.of([EMPTY] * len(batch), source.image)
        return replace(batch, text=texts.of(batch.captions, source.image), no_text=empty)


def _key(caption: str, picture: np.ndarray | None) -> bytes:
    """The key of a caption, and of the edited picture (H,W,3) uint8 if there is one."""
    return key_of(caption) if picture is None else key_of(caption, picture)


def _arrays(text: Text) -> dict[str, np.ndarray]:
    """Features of one caption by field of Text, without fields that are None."""
    values = {f.name: getattr(text, f.name) for f in fields(text)}
    return {name: value[0].cpu().numpy() for name, value in values.items() if value is not None}


def _records(
    root: Path, about: dict[str, Any], layout: dict[str, tuple[str, tuple[int, ...]]], on_write: Callable[[], None]
) -> Records:
    about = {"version": MAGIC.decode().strip(), **about, "layout": {k: list(v) for k, v in layout.items()}}
    name = json_digest(about)
    return Records(root / "features" / f"{about['kind']}-{name}", layout, about, on_write).refresh()
