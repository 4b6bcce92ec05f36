"""What an entry's name is made of: config, code and libraries on one hand, the picture's content on the other.

The content's hash is XXH3 (128 bits): of a 512x512 photo SHA-256 would take 0.43 ms, more than all the rest of reading
an entry, XXH3 takes 0.02 ms. It is no defence against pictures forged to collide, whose maker gains nothing here.
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
SHARED = ("core/types.py", "core/jit.py", "core/tensors.py")  # files of the package that they build on
PACKAGE = Path(__file__).resolve().parents[2]
LIBRARIES = ("numpy", "opencv-python-headless", "scikit-image", "scipy", "numba", "torch", "timm", "controlnet-aux")


def describe(cfg: DictConfig) -> dict[str, Any]:
    """All that sketch, regions and graph of a picture hang on, but for the picture; plain values for JSON.

    A local file of weights counts by its content, not by its path.
    """
    groups = {group: OmegaConf.to_container(cfg[group], resolve=True) for group in GROUPS}
    weights = groups["sketch"].get("weights")
    if isinstance(weights, str) and (path := Path(weights).expanduser()).is_file():
        groups["sketch"]["weights"] = checksum(path)
    return {**groups, "code": code_version(), "libraries": _libraries()}


def fingerprint(description: dict[str, Any]) -> str:
    """16 hex digits of what `describe` gave."""
    return json_digest(description)


def content_hash(item: Item) -> str:
    """32 hex digits of an item's image and drawing: values, shape and dtype."""
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
    """16 hex digits of the source that turns a picture into its graph: changed code never reads old entries."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def sources() -> list[Path]:
    """The files that `code_version` is of: not graph/backends/, which belongs to the model.

    They import nothing of this package but one another and errors.py.
    """
    parts = sorted(path for group in GROUPS for path in (PACKAGE / group).glob("*.py"))
    return [*(PACKAGE / name for name in SHARED), *parts]


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # an optional one
            continue
    return found
