"""The parts of a cache entry's name: a fingerprint of config, code and libraries, and a hash of the picture's content.

The content hash is XXH3 (128 bits): SHA-256 of a 512x512 photo would take 0.43 ms, more than the rest of reading an
entry, and XXH3 takes 0.02 ms. It does not withstand deliberate collisions, which would bring no gain here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.core.files import checksum
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.types import Item

GROUPS = ("sketch", "regions", "graph")  # config groups, and packages of ragaf_exp
SHARED = ("core/types.py", "core/edits.py", "core/jit.py", "core/tensors.py")  # files of the package that these use
PACKAGE = Path(__file__).resolve().parents[2]
LIBRARIES = ("numpy", "opencv-python-headless", "scikit-image", "scipy", "numba", "torch", "timm", "controlnet-aux")


def describe(cfg: DictConfig) -> dict[str, Any]:
    """Describe everything that a picture's sketch, regions and graph depend on besides the picture, as plain values.

    A local weight file counts by its content, not by its path.
    """
    groups = {group: OmegaConf.to_container(cfg[group], resolve=True) for group in GROUPS}
    weights = groups["sketch"].get("weights")
    if isinstance(weights, str) and (path := Path(weights).expanduser()).is_file():
        groups["sketch"]["weights"] = checksum(path)
    return {**groups, "code": code_version(), "libraries": _libraries()}


def fingerprint(description: dict[str, Any]) -> str:
    """Hash the result of `describe` to 16 hex digits."""
    return json_digest(description)


def content_hash(item: Item) -> str:
    """Hash values, shape and dtype of an item's image and drawing to 32 hex digits."""
    digest = xxhash.xxh3_128()
    for array in (item.image, item.drawing):
        if array is None:
            digest.update(b"none")
        else:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


@lru_cache(maxsize=1)
def code_version() -> str:
    """Hash the source that turns a picture into its graph to 16 hex digits, so that changed code reads no old entries."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def sources() -> list[Path]:
    """List the files that `code_version` covers, without graph/backends/, which belongs to the model.

    From this package they import only each other and core/errors.py.
    """
    parts = sorted(path for group in GROUPS for path in (PACKAGE / group).glob("*.py"))
    return [*(PACKAGE / name for name in SHARED), *parts]


def _libraries() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # an optional one
            continue
    return versions
