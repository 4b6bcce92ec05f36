"""Locates a CLIP model: its architecture by open_clip's name or a JSON file, its weights by tag or file."""

from __future__ import annotations

import difflib
import json
import logging
import os
import socket
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from eval.features.weights import downloading
from eval.unavailable import Unavailable
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensors import brief

MODEL, PRETRAINED, CONFIG = "eval.clip_model", "eval.clip_pretrained", "eval.clip_config"
PARTS = ("embed_dim", "vision_cfg", "text_cfg")  # keys that open_clip requires of an architecture
PREPARATION = ("mean", "std", "interpolation", "resize_mode", "fill_color")
IMPLIED = ("size", "mode")  # the configs of hub models repeat these; the network itself defines them
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # in the order in which open_clip looks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """An architecture and the file of its weights."""

    name: str  # in open_clip's registry
    label: str  # of its weights: the tag, or the file's name
    weights: Path
    preparation: dict[str, Any]  # preprocessing of images, where it differs from open_clip's default
    config: str = ""  # the JSON file of the architecture


def library() -> ModuleType:
    """The open_clip package. Raises Unavailable if it is not installed."""
    try:
        with hushed():
            import open_clip
    except ImportError as error:
        raise Unavailable(f"{MODEL}: CLIP scores need open_clip ({error}); pip install 'open-clip-torch>=3.3'") from error
    return open_clip


def local(model: str, pretrained: str, config: str) -> Source | None:
    """The named model if its weights come from a file.

    Args:
        model: open_clip's name of the architecture.
        pretrained: A tag, or a weights file.
        config: JSON file of an architecture, in place of `model`; "" for none.

    Returns:
        The source; None if `pretrained` is a tag.

    Raises:
        UserError: For an unknown model or tag and an invalid config.
    """
    if config:
        return _custom(Path(config).expanduser(), pretrained)
    clip = library()
    if model not in clip.list_models():
        close = difflib.get_close_matches(model, clip.list_models(), 3)
        raise UserError(f"{MODEL}={model}: open_clip has no such model" + (f"; {', '.join(close)}?" if close else "")
                        + f"; or give {CONFIG}=JSON")  # fmt: skip
    tags = clip.list_pretrained_tags_by_model(model)
    if pretrained in tags:
        return None
    file = Path(pretrained).expanduser()
    if not file.is_file():
        known = ", ".join(tags) or "it has none"
        raise UserError(f"{PRETRAINED}={pretrained}: neither a file nor a tag of {model}; tags: {known}")
    return Source(model, file.name, file, _usual(model))


def find(model: str, pretrained: str, config: str) -> Source:
    """The named model. Downloads its weights if a tag names them.

    Args:
        model: open_clip's name of the architecture.
        pretrained: A tag, or a weights file.
        config: JSON file of an architecture, in place of `model`; "" for none.

    Raises:
        UserError: For an unknown model or tag and an invalid config.
        Unavailable: If the weights can't be downloaded.
    """
    source = local(model, pretrained, config)
    if source is not None:
        return source
    clip = library()
    tag = clip.get_pretrained_cfg(model, pretrained)
    if tag.get("quick_gelu") and not clip.get_model_config(model).get("quick_gelu"):
        model = f"{model}-quickgelu"  # the activation that this tag was trained with; open_clip would only warn
    return Source(model, pretrained, _fetched(tag, pretrained), _preparation(tag))


def _custom(path: Path, pretrained: str) -> Source:
    """An architecture from a JSON file: open_clip's own form, or the open_clip_config.json that hub models have."""
    content = _read(path)
    config, preparation = content.get("model_cfg", content), content.get("preprocess_cfg", {})
    if not isinstance(config, dict) or not isinstance(preparation, dict) or any(part not in config for part in PARTS):
        raise UserError(f"{CONFIG}={path}: is no open_clip model config; it needs {', '.join(PARTS)}")
    unknown = sorted(set(preparation) - {*PREPARATION, *IMPLIED})
    if unknown:
        raise UserError(f"{CONFIG}={path}: preprocess_cfg.{unknown[0]} is unknown; known are {', '.join(PREPARATION)}")
    if "trust_remote_code" in json.dumps(config):
        raise UserError(f"{CONFIG}={path}: trust_remote_code would run a stranger's code; take it out")
    weights = Path(pretrained).expanduser()
    if not weights.is_file():
        raise UserError(f"{PRETRAINED}={pretrained}: no such file; a model of {CONFIG} needs a file of its weights")
    bare = {key: value for key, value in config.items() if key != "preprocess_cfg"}
    return Source(_registered(path.stem, bare), weights.name, weights, _preparation(preparation), str(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{CONFIG}={path}: can't be read ({error.strerror}); name a JSON file") from error
    except ValueError as error:
        raise UserError(f"{CONFIG}={path}: is not JSON ({brief(error)}); fix it") from error
    if not isinstance(content, dict):
        raise UserError(f"{CONFIG}={path}: is no open_clip model config; it needs {', '.join(PARTS)}")
    return content


def _registered(stem: str, config: dict[str, Any]) -> str:
    """Register the architecture with open_clip, under its stem and a checksum, so that names don't clash."""
    text = json.dumps(config, sort_keys=True)
    name = f"{stem}-{sha256(text.encode()).hexdigest()[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.json"
        file.write_text(text)
        library().add_model_config(file)
    return name


def _usual(model: str) -> dict[str, Any]:
    """Preprocessing for weights from a file: that of the model's tags if they agree, else open_clip's default."""
    clip = library()
    known = [_preparation(clip.get_pretrained_cfg(model, tag)) for tag in clip.list_pretrained_tags_by_model(model)]
    if all(other == known[0] for other in known):
        return known[0] if known else {}
    log.warning("%s=%s: its published weights differ in how images are prepared; taking open_clip's default; to say "
                "which, give %s=JSON with a preprocess_cfg", MODEL, model, CONFIG)  # fmt: skip
    return {}


def _preparation(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in PREPARATION if key in config}


def _fetched(tag: dict[str, Any], name: str) -> Path:
    """The weights file of a tag: from the hub's cache without network access, else downloaded by open_clip."""
    clip = library()
    hub, named = os.path.split(tag.get("hf_hub", ""))
    url = f"https://huggingface.co/{hub}/resolve/main/{named or HUB_FILES[0]}" if hub else tag.get("url", "")
    with hushed(), downloading(PRETRAINED, f"open_clip's {name}", url):
        from huggingface_hub import constants, try_to_load_from_cache

        for file in (named,) if named else HUB_FILES:
            cached = try_to_load_from_cache(hub, file) if hub else None
            if isinstance(cached, str):
                return Path(cached)
        _look_up(constants.ENDPOINT if hub else url)
        return Path(clip.download_pretrained(tag))


def _look_up(url: str) -> None:
    """Raise OSError if the host's name can't be resolved: the hub's client would retry for 45 seconds."""
    if not urllib.request.getproxies():
        socket.getaddrinfo(urlsplit(url).hostname, 443)


@contextmanager
def hushed() -> Iterator[None]:
    """Silence the logs of open_clip and the hub's client, which would bury the one line that says what to do.

    open_clip calls the root logger's functions, which would install a permanent handler if the root has none.
    """
    root, hub, sink = logging.getLogger(), logging.getLogger("huggingface_hub"), logging.NullHandler()
    levels = root.level, hub.level
    root.addHandler(sink)
    root.setLevel(logging.CRITICAL)
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(levels[0])
        hub.setLevel(levels[1])
        root.removeHandler(sink)
