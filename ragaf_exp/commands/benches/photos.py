"""Benchmarks: loading COCO photos whose sketch, regions and graph are cached, and the start on 118,000 items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ragaf_exp.commands.benches.timing import medians, row

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")  # bundled with scikit-image
COPIES, QUALITY = 8, 90  # crops of each photo, and their JPEG quality
HEIGHT, WIDTH = 480, 640  # the usual size of COCO's photos
ITEMS, CAPTIONS = 118_000, 5  # of train2017
POLYGON = [[20.5, 30.2, 300.1, 28.0, 310.7, 250.4, 160.0, 330.9, 15.2, 240.3]]


def photos() -> list[dict[str, Any]]:
    """Milliseconds per photo of 640 x 480 pixels at two sizes, with cached sketches; seconds and MB of a start."""
    cv2.setNumThreads(1)
    return [_loading(512), _loading(128), *_starts()]


def _loading(size: int) -> dict[str, Any]:
    from ragaf_exp.assembly.assemble import preparer
    from ragaf_exp.config.compose import compose_config
    from ragaf_exp.data.cache.fingerprint import describe
    from ragaf_exp.data.cache.prepare import CachedPreparer
    from ragaf_exp.data.sources.coco import Coco
    from ragaf_exp.store.entries import GIGABYTE, Store

    cfg = compose_config(["sketch=canny", "graph=hybrid", "regions.max_regions=64"])
    with tempfile.TemporaryDirectory() as folder:
        paths = _write_photos(Path(folder) / "coco")
        items = Coco(str(Path(folder) / "coco"), size=size, val_share=0, test_share=0).split("train")
        read = CachedPreparer(preparer(cfg), Store(Path(folder) / "cache", GIGABYTE), describe(cfg))
        turns = medians([lambda: [read(item) for item in items], lambda: [_decoded(path, size) for path in paths]])
    load, decode = (turn / len(paths) for turn in turns)
    what = f"COCO photo to {size}x{size} with masks and cached sketch, regions and graph; reference: Pillow's decoding"
    return row(f"photos/load_{size}", load, decode, "ms", f"{what} (draft mode) to an array")


def _decoded(path: Path, size: int) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:
        scale = size / min(picture.size)
        picture.draft("RGB", (int(picture.width * scale), int(picture.height * scale)))
        return np.asarray(picture.convert("RGB"))


def _write_photos(root: Path) -> list[Path]:
    """Write crops of scikit-image's photos in COCO's layout."""
    from ragaf_exp.commands.extractor_sheet import bundled_photo

    (root / "train2017").mkdir(parents=True)
    rng, paths = np.random.default_rng(0), []
    for name in PHOTOS:
        image = bundled_photo(name)
        for _ in range(COPIES):
            top, left = rng.integers(0, image.shape[0] // 4), rng.integers(0, image.shape[1] // 4)
            crop = cv2.resize(image[top:, left:], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
            paths.append(root / "train2017" / f"{len(paths) + 1:012d}.jpg")
            packed = cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
            paths[-1].write_bytes(packed.tobytes())
    _write_annotations(root, len(paths))
    return paths


def _write_annotations(root: Path, count: int) -> None:
    """Write captions and instances of images 1 to `count`."""
    (root / "annotations").mkdir(parents=True)
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(1, count + 1)]
    texts = [{"image_id": i, "id": CAPTIONS * i + j, "caption": f"A man with a dog next to car number {i} on street {j}."}
             for i in range(1, count + 1) for j in range(CAPTIONS)]  # fmt: skip
    things = [{"image_id": i, "id": 7 * i + j, "category_id": (1, 3, 18)[j % 3], "area": 900.0, "segmentation": POLYGON}
              for i in range(1, count + 1) for j in range(7)]  # fmt: skip
    names = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 18, "name": "dog"}]
    contents = {"captions": {"annotations": texts}, "instances": {"annotations": things, "categories": names}}
    for kind, content in contents.items():
        (root / "annotations" / f"{kind}_train2017.json").write_text(json.dumps({"images": images, **content}))


def _starts() -> list[dict[str, Any]]:
    """Measure a start on a listing of ITEMS empty files, before and after its index is stored."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "coco"
        (root / "train2017").mkdir(parents=True)
        for number in range(1, ITEMS + 1):
            (root / "train2017" / f"{number:012d}.jpg").touch()
        _write_annotations(root, ITEMS)
        before = os.environ.get("RAGAF_CACHE")
        os.environ["RAGAF_CACHE"] = str(Path(folder) / "cache")
        try:
            first, _ = _start(root)
            again, memory = _start(root)
        finally:
            os.environ.pop("RAGAF_CACHE") if before is None else os.environ.update(RAGAF_CACHE=before)
    what = f"CPU time, data=coco with {ITEMS:,} images, {CAPTIONS * ITEMS:,} captions and {7 * ITEMS:,} instances"
    return [
        {"name": "photos/start_118k_first", "value": first, "unit": "s", "what": f"{what}; annotations are indexed once"},
        {"name": "photos/start_118k", "value": again, "unit": "s", "what": f"{what}, indexed"},
        {"name": "photos/start_118k_memory", "value": memory, "unit": "MB", "what": "largest use beyond the imports"},
    ]


def _start(root: Path) -> tuple[float, float]:
    """Build the data source in another process: CPU seconds, and MB of its largest memory use beyond the imports."""
    code = (
        "import re, sys, time; from pathlib import Path; from ragaf_exp.data.sources.coco import Coco;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1e3;"
        "base, began = peak(), time.process_time(); Coco(sys.argv[1], size=64).split('train').captions(4000);"
        "print(time.process_time() - began, peak() - base)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes
