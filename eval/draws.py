"""A run's images of its test items, drawn batch by batch and kept, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ragaf_exp.files import write_bytes
from ragaf_exp.generate import Drawn

log = logging.getLogger(__name__)
FIELDS = ("stage1", "stage2", "region_text")


class Draws:
    """Batches under folder/<fingerprint>/. What an earlier fingerprint left there is of other weights, and is removed.

    fingerprint: of all that decides the images (see `fingerprint`).
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.folder = folder / fingerprint
        for other in folder.glob("*") if folder.is_dir() else ():
            if other != self.folder and other.is_dir():
                shutil.rmtree(other, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def batch(self, keys: list[str], draw: Callable[[], Drawn]) -> Drawn:
        """The images of these items: read where they were drawn before, else drawn and kept."""
        name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.safetensors"
        found = _read(path)
        if found is None:
            found = draw()
            arrays = {field: getattr(found, field) for field in FIELDS}
            write_bytes(path, save({k: np.ascontiguousarray(v) for k, v in arrays.items() if v is not None}))
        return found


def fingerprint(*facts: object) -> str:
    """16 hex digits of JSON-like facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> Drawn | None:
    """None where there is no such file, or a damaged one, which will be written again."""
    try:
        arrays = load(path.read_bytes())
    except FileNotFoundError:
        return None
    except SafetensorError as error:
        log.warning("%s: damaged (%s); drawn again", path, error)
        return None
    return Drawn(*(arrays.get(field) for field in FIELDS))
