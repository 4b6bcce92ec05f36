"""Features of a run's frozen encoders: which there are, how they are computed, how a batch gets them.

A latent's key is the picture's content, so that a mirrored or cropped picture has its own; a text's is the caption.
Folders are named by the encoder's weights and settings, the size and the version of the layout.
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
from ragaf_exp.core.types import Batch, Example
from ragaf_exp.data.loader import collate
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.store.records import MAGIC, Records, key_of, no_op

EMPTY = ""  # the caption of a dropped one


class Latents:
    """Latents of pictures (H,W,3) uint8 by a frozen codec. size: H and W of most; other sizes have records of their own."""

    def __init__(self, place: Path, codec: Codec, size: int, on_write: Callable[[], None] = no_op):
        self.codec, self.place, self.on_write = codec, place, on_write
        self.by_size: dict[tuple[int, int], Records] = {}
        self.records = self.of_size(size, size)

    def of_size(self, height: int, width: int) -> Records:
        """The records of pictures of this size."""
        if (height, width) not in self.by_size:
            shape = (self.codec.channels, height // self.codec.downscale, width // self.codec.downscale)
            size = height if height == width else [height, width]
            about = {"kind": "latent", "by": self.codec.fingerprint, "size": size}
            self.by_size[height, width] = _records(self.place, about, {"latent": ("<f4", shape)}, self.on_write)
        return self.by_size[height, width]

    def every(self) -> list[Records]:
        """The records of all sizes."""
        return list(self.by_size.values())

    def has(self, image: np.ndarray) -> bool:
        """Whether a picture's latent is recorded."""
        return key_of(image) in self.of_size(*image.shape[:2])

    @torch.no_grad()
    def compute(self, images: list[np.ndarray], device: torch.device) -> None:
        """Encode and keep pictures, one by one: kernels may round by the size of a batch, and a record must not."""
        for image in images:
            pixels = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).to(device).float() / 127.5 - 1
            latent = self.codec.encode(pixels)[0].float().cpu().numpy()
            self.of_size(*image.shape[:2]).write(key_of(image), {"latent": latent})

    def of(self, images: Iterable[np.ndarray]) -> torch.Tensor:
        """(B,C,h,w), of pictures of one size."""
        found = [self.of_size(*image.shape[:2]).read(key_of(image))["latent"] for image in images]
        return torch.from_numpy(np.stack(found))


class Texts:
    """Text features of captions by a frozen encoder."""

    def __init__(self, place: Path, text: TextEncoder, on_write: Callable[[], None] = no_op):
        self.text: TextEncoder | None = text
        with torch.no_grad():
            shape = _arrays(text([EMPTY]))
        layout = {name: (array.dtype.str, array.shape) for name, array in shape.items()}
        self.records = _records(place, {"kind": "text", "by": text.fingerprint}, layout, on_write)
        self.records.refresh()

    def every(self) -> list[Records]:
        """The records, in the form of `Latents.every`."""
        return [self.records]

    @torch.no_grad()
    def compute(self, captions: list[str]) -> None:
        """Encode and keep captions."""
        assert self.text is not None, "captions are encoded before the encoder is dropped"
        for caption in captions:
            self.records.write(key_of(caption), _arrays(self.text([caption])))

    def of(self, captions: Iterable[str]) -> Text:
        rows = [self.records.read(key_of(caption)) for caption in captions]
        return Text(**{name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]})


@dataclass(frozen=True)
class CacheUse:
    """Which encoders' outputs training reads from the cache."""

    latents: bool = False
    texts: bool = False


class Featured:
    """Collates examples to a batch that holds the features of its items. Either kind may be None."""

    def __init__(self, latents: Latents | None, texts: Texts | None):
        self.latents, self.texts = latents, texts

    @property
    def use(self) -> CacheUse:
        return CacheUse(self.latents is not None, self.texts is not None)

    def __call__(self, examples: list[Example], spans: bool = False) -> Batch:
        batch = collate(examples, spans)
        try:
            if self.latents is not None:
                batch = replace(batch, latent=self.latents.of(e.item.image for e in examples))
            if self.texts is not None:
                batch = replace(batch, text=self.texts.of(batch.captions), no_text=self.texts.of([EMPTY]))
        except KeyError as error:
            for kind in (self.latents, self.texts):
                for records in () if kind is None else kind.every():
                    records.forget()
            raise UserError(f"{batch.keys}: changed on disk while training; the same command computes the "
                            "features again and continues") from error  # fmt: skip
        return batch


def _arrays(text: Text) -> dict[str, np.ndarray]:
    """One caption's features by the names of Text's fields; those that it leaves out are left out."""
    found = {f.name: getattr(text, f.name) for f in fields(text)}
    return {name: value[0].cpu().numpy() for name, value in found.items() if value is not None}


def _records(
    place: Path, about: dict[str, Any], layout: dict[str, tuple[str, tuple[int, ...]]], on_write: Callable[[], None]
) -> Records:
    about = {"version": MAGIC.decode().strip(), **about, "layout": {k: list(v) for k, v in layout.items()}}
    name = json_digest(about)
    return Records(place / "features" / f"{about['kind']}-{name}", layout, about, on_write).refresh()
