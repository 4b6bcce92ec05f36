"""LayoutSAM-Eval (Zhang et al. 2024, arXiv 2412.03859): its data set's columns, pictures, and minicpm-vqa.json.

The judge, score_layoutsam_benchmark.py of CreatiLayout, reads the data set through Hugging Face's datasets, which takes a
folder with a Parquet file in place of the hub's name, and asks a vision-language model about the crop of each box.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.judges.files import not_theirs, read_json, save
from eval.judges.scenes import Figure, Scene, Thing, Written, sorted_out
from eval.statistics.bootstrap import mean_interval
from ragaf_exp.core.errors import UserError

SIDE = 512  # pixels; `resolution` in the judge
TABLE = "data/test-00000-of-00001.parquet"
SCORES = ("spatial", "color", "texture", "shape")
TEXTS = ("global_caption", "bbox_list", "region_captions", "detail_region_captions", "file_name")


def write(scenes: Sequence[Scene], out: Path) -> Written:
    """Write the data set and the pictures.

    Args:
        scenes: The scenes.
        out: The folder: the judge's dataset_path, and images/ in it its generate_path.

    Returns:
        What was written.

    Raises:
        UserError: The package pyarrow is missing.
    """
    if find_spec("pyarrow") is None:
        raise UserError("format=layoutsam: needs the package pyarrow; pip install pyarrow")
    written, left = sorted_out(scenes, {"has no object": {scene.key for scene in scenes if not scene.things}})
    rows = [row_of(scene, f"{number:06d}.jpg") for number, scene in enumerate(written)]
    for row, scene in zip(rows, written, strict=True):
        save(scene.image, out / "images" / row["file_name"], SIDE)
    _write_table(rows, [scene.image for scene in written], out / TABLE)
    return Written([scene.key for scene in written], left, sum(len(scene.things) for scene in written))


def row_of(scene: Scene, name: str) -> dict[str, Any]:
    """A scene as a row of the data set, in which lists are texts as Python writes them.

    Args:
        scene: The scene.
        name: Of its picture.
    """
    boxes = [[round(share * SIDE) for share in thing.box] for thing in scene.things]
    return {
        "height": SIDE, "width": SIDE, "global_caption": scene.caption, "bbox_list": repr(boxes),
        "region_captions": repr([thing.noun for thing in scene.things]),
        "detail_region_captions": repr([_described(thing) for thing in scene.things]), "file_name": name,
    }  # fmt: skip


def _described(thing: Thing) -> str:
    return thing.phrase or f"{thing.colour} {thing.noun}"


def _write_table(rows: list[dict[str, Any]], images: list[np.ndarray], path: Path) -> None:
    """Write the rows with their pictures as Parquet, with the metadata by which `datasets` knows a column of images."""
    import pyarrow as pa
    from pyarrow import parquet

    numbers, texts = {"dtype": "int64", "_type": "Value"}, {"dtype": "string", "_type": "Value"}
    features = {"image": {"_type": "Image"}, "height": numbers, "width": numbers, **dict.fromkeys(TEXTS, texts)}
    types = {"image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]), "height": pa.int64(), "width": pa.int64(),
             **dict.fromkeys(TEXTS, pa.string())}  # fmt: skip
    info = {"huggingface": json.dumps({"info": {"features": features}})}
    full = [{"image": {"bytes": _png(image), "path": None}, **row} for row, image in zip(rows, images, strict=True)]
    path.parent.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(full, pa.schema(list(types.items()), metadata=info)), path)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def read(path: Path, scenes: int) -> list[Figure]:
    """Read minicpm-vqa.json.

    Args:
        path: The file.
        scenes: The number of scenes that were written.

    Returns:
        The share of boxes for each of its questions, with intervals over images.

    Raises:
        UserError: The file is of another kind, or of another number of scenes.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(_is_row(row) for row in content.values()):
        raise not_theirs(path, "lacks bbox_count and the four scores of an image")
    if len(content) != scenes:
        raise not_theirs(path, f"holds {len(content)} images, and {scenes} were exported")
    clusters = [name for name, row in content.items() for _ in range(row["bbox_count"])]
    figures = []
    for score in SCORES:
        answers = [float(i < row[f"score_{score}"]) for row in content.values() for i in range(row["bbox_count"])]
        mean, low, high = mean_interval(answers, clusters)
        figures.append(Figure(score, mean, len(answers), (low, high)))
    return figures


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or type(count := row.get("bbox_count")) is not int or count < 1:
        return False
    return all(type(row.get(f"score_{s}")) in (int, float) and 0 <= row[f"score_{s}"] <= count for s in SCORES)
