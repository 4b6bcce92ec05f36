"""COCO's captions by image id, for data sets that use its images."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.sources.annotation_index import read_captions


def captions_by_id(folder: str) -> dict[int, list[str]]:
    """Read the captions of train2017 and val2017. Raises UserError if neither is in the folder."""
    above = Path(folder) / "annotations"
    paths = [path for part in ("train", "val") if (path := above / f"captions_{part}2017.json").is_file()]
    if not paths:
        raise UserError(f"data.coco={folder}: no annotations/captions_train2017.json in it; name COCO's folder")
    return {number: texts for path in paths for number, _, texts in read_captions(path)}


def part_ids(folder: str, part: str) -> set[int]:
    """Read the image ids of a part, as train2017; none if its captions are not there."""
    path = Path(folder) / "annotations" / f"captions_{part}.json"
    return {number for number, _, _ in read_captions(path)} if path.is_file() else set()


def coco_id(stem: str) -> int:
    """Return the image id that a file's stem ends with, -1 without one."""
    digits = stem.rpartition("_")[2]
    return int(digits) if digits.isdigit() else -1
