"""Computes missing features before training, or with python -m ragaf_exp.commands.cache.features."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from tqdm import tqdm

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.build import build
from ragaf_exp.config.moved import original
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_json
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.fit import resampling_of
from ragaf_exp.data.loader import Examples, collate
from ragaf_exp.data.variants import pictures
from ragaf_exp.distributed import collectives, launch
from ragaf_exp.models.inputs import ALL
from ragaf_exp.store.entries import locate_cache
from ragaf_exp.store.records import key_of, no_op
from ragaf_exp.tasks.base import Task
from ragaf_exp.training.encoder_cache.features import EMPTY, Featured, Latents, Texts

log = logging.getLogger(__name__)
Encoder = TypeVar("Encoder", bound=nn.Module)
FLUSH = 64  # number of items between writes to disk


def prepare(cfg: DictConfig, parts: Parts, device: torch.device, on_write: Callable[[], None] = no_op) -> Featured | None:
    """Compute missing features of the training split and open the cache. Encoders are on the device only meanwhile.

    Args:
        cfg: Config of the run.
        parts: Its components.
        device: The device of the encoders.
        on_write: Called when features have been written to disk.

    Returns:
        The collate function with features; None for memory.features=none.

    Raises:
        UserError: An encoder is trained, so that its outputs cannot be cached, or the cache is disabled.
    """
    if cfg.memory.features == "none":
        return None
    if not cfg.cache.enabled:
        raise UserError("memory.features: stored in the cache folder; take cache=default")
    folder, items = locate_cache(cfg.cache.folder), parts.source.split("train")
    once = partial(_once, cfg, count=len(items), digest=digest_of(parts.source) + pixels_of(parts.source))
    plain, mirrored = pictures(items, parts.task.crops, parts.task.mirror > 0, cfg.seed)
    latents = texts = None
    if any(True for _ in parts.codec.parameters()):  # a codec without parameters is fast enough
        codec = _frozen(parts.codec, "codec", cfg.codec._target_)
        home = next(codec.parameters()).device
        codec.to(device)
        latents = Latents(folder, codec, cfg.data.size, on_write)
        once(latents.records.folder, fill=lambda: _encode(latents, [*plain, *mirrored], device))
        codec.to(home)
    if cfg.memory.features == "all":
        text = _frozen(build(cfg.text, "text", tokenizer=parts.tokenizer), "text", cfg.text._target_)
        with text.on(device):
            if text.reads_image:
                texts = Texts(folder, text, on_write, _sample(cfg, parts))
                _fill_with_images(cfg, parts, texts, once)
            else:
                texts = Texts(folder, text, on_write)
                once(texts.records.folder, fill=lambda: _read(texts, items))
        texts.text = None
    for kind in (latents, texts):
        for records in () if kind is None else kind.every():
            records.refresh()
    return Featured(latents, texts, parts.task)


def _sample(cfg: DictConfig, parts: Parts) -> torch.Tensor:
    """An image (1,3,H,W) of the size of all edited images.

    Raises:
        UserError: Images have several sizes, and the number of an image's tokens depends on its size.
    """
    if cfg.data.get("buckets"):
        raise UserError("memory.features=all: stores the tokens of edited images of one size, and data.buckets gives "
                        "several; set memory.features=latents, or leave data.buckets out")  # fmt: skip
    return _source(parts.task, parts.examples("train")[0])


def _fill_with_images(cfg: DictConfig, parts: Parts, texts: Texts, once: Callable[..., None]) -> None:
    """Fill the features of captions that an encoder reads together with the edited image."""
    examples = parts.examples("train")
    reads = {key: OmegaConf.to_container(cfg[key]) for key in ("task", "sketch")}  # which decide the edited images
    once(texts.records.folder, fill=lambda: _read_images(texts, examples, parts.task), further=json_digest(reads))


def _read_images(texts: Texts, examples: Examples, task: Task) -> None:
    texts.records.refresh()
    for i in _bar(examples, "text features", texts):
        example = examples[i]
        image = _source(task, example)
        if not torch.equal(image, _source(task, examples.at(1, i))):
            raise UserError(f"memory.features=all: the image that {example.item.key} edits differs from step to step, and "
                            "the text encoder reads it; set memory.features=latents, or give fixed holes")  # fmt: skip
        captions = {EMPTY: None, example.item.caption: None, **{other.text: None for other in example.item.captions}}
        texts.compute(list(captions), image)


def _source(task: Task, example: Example) -> torch.Tensor:
    """The image (1,3,H,W) that an example's task edits."""
    source = task.source(collate([example]), ALL)
    assert source is not None, "an encoder that reads images needs a task with one"
    return source.image


def digest_of(source: Any) -> str:
    """Digest of the files that a data source reads, "" if its config determines the data."""
    return source.manifest().digest() if hasattr(source, "manifest") else ""


def pixels_of(source: Any) -> str:
    """Name further facts that decide a source's pixels: the step of its buckets, and how photos are shrunk."""
    buckets, resampling = getattr(source, "buckets", None), resampling_of(source)
    return ("" if buckets is None else f"/{buckets.step}") + (f"/{resampling}" if resampling else "")


def marker(cfg: DictConfig, folder: Path, count: int, digest: str = "") -> Path:
    """The path of a marker, which exists if a folder holds the features of all items.

    Args:
        cfg: Config of the run.
        folder: Folder of the features.
        count: Number of items.
        digest: Digest of the data files, see `digest_of`.

    Returns:
        The path.
    """
    count_of, mirrored = cfg.task.get("crops", 0), cfg.task.get("mirror", 0.0) > 0
    crops = [count_of, cfg.seed if count_of else 0]
    data = original(OmegaConf.to_container(cfg.data))
    about = {"data": data, "mirror": mirrored, "crops": crops, "count": count}
    about |= {"digest": digest} if digest else {}
    return folder / f"{json_digest(about)}.whole.json"


def _once(cfg: DictConfig, folder: Path, count: int, digest: str, fill: Any, further: str = "") -> None:
    """Call `fill` in every process, unless an earlier call has completed."""
    done = marker(cfg, folder, count, digest + further)
    if collectives.all_reduce_max(float(not done.exists())):
        fill()
        launch.barrier()
        if launch.is_main_process():
            write_json(done, {"items": count})


def _frozen(encoder: Encoder, group: str, target: str) -> Encoder:
    if any(p.requires_grad for p in encoder.parameters()) or not hasattr(encoder, "fingerprint"):
        other = "take memory.features=latents, or none" if group == "text" else "take memory.features=none"
        raise UserError(f"memory.features: {group}={target.rpartition('.')[2]} is trained with the denoiser, so its "
                        f"outputs cannot be cached; {other}")  # fmt: skip
    return encoder


def _encode(latents: Latents, splits: list[Sequence[Item]], device: torch.device) -> None:
    for items in splits:
        for i in _bar(items, "latents", latents):
            image = items[i].image
            if not latents.has(image):
                latents.compute([image], device)


def _read(texts: Texts, items: Sequence[Item]) -> None:
    texts.records.refresh()
    if key_of(EMPTY) not in texts.records:
        texts.compute([EMPTY])
    for i in _bar(items, "text features", texts):
        item = items[i]
        for caption in {item.caption: None, **{other.text: None for other in item.captions}}:
            if key_of(caption) not in texts.records:
                texts.compute([caption])


def _bar(items: Sequence[Item] | Examples, what: str, kind: Latents | Texts) -> Any:
    """Yield the indices of this process's items with a progress bar, and write features at intervals."""
    mine = range(collectives.rank(), len(items), collectives.count())
    with tqdm(total=len(mine), desc=what, unit="item", mininterval=1.0, disable=not launch.is_main_process()) as bar:
        for done, i in enumerate(mine, 1):
            yield i
            bar.update()
            if done % FLUSH == 0:
                _flush(kind)
    _flush(kind)


def _flush(kind: Latents | Texts) -> None:
    for records in kind.every():
        records.flush()
