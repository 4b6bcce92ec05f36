"""Benchmark: reading sketch, regions and graph from the disk cache, compared with computing them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from ragaf_exp.commands.benches.timing import medians, row
from ragaf_exp.core.types import Example, Item

PHOTOS = ("astronaut", "coffee", "chelsea", "camera")  # bundled with scikit-image
READS = 100  # entries per round


def cache() -> list[dict[str, Any]]:
    """Milliseconds per item and graphs per second, including the image hash; files are usually in the page cache."""
    from ragaf_exp.config.build import build
    from ragaf_exp.config.compose import compose_config

    cfg = compose_config([])
    scenes = build(cfg.data, "data").split("train")
    photos = compose_config(["sketch=canny", "graph=hybrid", "regions.max_regions=64"])
    return [
        *_rows("64", cfg, [scenes[i] for i in range(READS)], "embedded scenes, 64x64"),
        *_rows("512", photos, [photo(name, 512) for name in PHOTOS], "scikit-image's photos, 512x512, Canny, hybrid"),
    ]


def photo(name: str, size: int) -> Item:
    """A photo bundled with scikit-image, stretched to a square of size x size px."""
    from ragaf_exp.commands.extractor_sheet import bundled_photo

    return Item(name, cv2.resize(bundled_photo(name), (size, size), interpolation=cv2.INTER_AREA), caption="")


def _rows(size: str, cfg: Any, items: list[Item], what: str) -> list[dict[str, Any]]:
    from ragaf_exp.assembly.assemble import preparer
    from ragaf_exp.data.cache.fingerprint import describe
    from ragaf_exp.data.cache.prepare import CachedPreparer
    from ragaf_exp.store.entries import GIGABYTE, Store

    compute = preparer(cfg)
    with tempfile.TemporaryDirectory() as folder:
        read = CachedPreparer(compute, Store(Path(folder), GIGABYTE), describe(cfg))
        _each(read, items)
        rounds = READS // len(items)
        turns = medians([lambda: _each(read, items * rounds), lambda: _each(compute, items)])
    from_disk, computed = turns[0] / (len(items) * rounds), turns[1] / len(items)
    rate = {"name": f"cache/graphs_{size}", "value": 1000 / from_disk, "unit": "graphs/s", "what": f"read; {what}"}
    return [row(f"cache/read_{size}", from_disk, computed, "ms", f"{what}; reference: computing them"), rate]


def _each(prepare: Callable[[Item], Example], items: list[Item]) -> None:
    """Prepare items one by one and discard them, as a loader discards its batches."""
    for item in items:
        prepare(item)
