"""Sidecar files of a folder of images: captions with phrases, sketches, and masks of the phrases' objects.

They are matched by an image's key, its relative name without suffix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.images import ImageSet, pictures_in
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item, SceneObject
from ragaf_exp.data.decode import read_labels
from ragaf_exp.data.fit import resize_strokes
from ragaf_exp.data.images import read_drawing
from ragaf_exp.data.lengths import shortened
from ragaf_exp.data.sources.metadata import numbered_records
from ragaf_exp.data.sources.names import normal
from ragaf_exp.data.sources.palette import OBJECT_COLOURS
from ragaf_exp.data.sources.scenes import FILLS


@dataclass(frozen=True)
class Caption:
    """An image's caption, and its phrases that masks belong to."""

    text: str
    phrases: tuple[str, ...] = ()
    before: str = ""  # the caption of the image that an edit started from


def read_captions(path: Path, skipped: list[str] | None = None) -> dict[str, Caption]:
    """Captions by key from a .csv or .jsonl file with file_name and text.

    In .jsonl `phrases` may be a list, and `text_before` is the caption of the image before an edit. Texts are cut after
    10,000 characters, with a warning. If `skipped` is given, unusable rows are left out and the reasons appended to it.
    Raises UserError for an invalid file or row.
    """
    captions: dict[str, Caption] = {}
    records = list(numbered_records(path, ("file_name", "text"), skipped))
    texts = shortened([record["text"] for _, record in records], path)
    for (number, record), text in zip(records, texts, strict=True):
        key = Path(normal(record["file_name"])).with_suffix("").as_posix()
        phrases, before = record.get("phrases") or [], record.get("text_before") or ""
        if not isinstance(phrases, list) or not all(isinstance(p, str) and p in text for p in phrases):
            raise UserError(f"{path}: row {number}: phrases must be a list of pieces of its text")
        if not isinstance(before, str) or before and _plain(before) == _plain(text):
            raise UserError(f"{path}: row {number}: text_before must be another text than text, or empty")
        if key in captions:
            raise UserError(f"{path}: row {number}: a second caption for {key}; keep one")
        captions[key] = Caption(text, tuple(phrases), before)
    return captions


def _plain(text: str) -> str:
    """Normalise case and spaces, which CLIP's tokenizer ignores."""
    return " ".join(text.lower().split())


def files_by_key(folder: Path, argument: str) -> dict[str, Path]:
    """The pictures below a folder, by key. Raises UserError if there are none."""
    try:
        return pictures_in(folder)[0]
    except UserError as error:
        raise UserError(f"{argument}={error}") from error


def sketches_of(images: ImageSet, files: dict[str, Path]) -> Sequence[np.ndarray]:
    """The sketch of each image at the image's size, (H,W) float32 in [0,1]."""
    return LazyItems(lambda i: resize_strokes(read_drawing(files[images.keys[i]]), *images[i].shape[:2]), len(images))


def scenes_of(images: ImageSet, files: dict[str, Path], captions: dict[str, Caption]) -> Sequence[Item]:
    """Each image's objects, from its mask: value k, counted from 1, marks the object of the k-th phrase.

    Args:
        images: The images.
        files: The mask of each image, by key.
        captions: The caption of each image, by key.

    Returns:
        A lazy sequence that raises UserError on access to an image with an invalid mask.
    """
    return LazyItems(lambda i: _scene(images.keys[i], images[i].shape[:2], files[images.keys[i]], captions), len(images))


def _scene(key: str, shape: tuple[int, int], path: Path, captions: dict[str, Caption]) -> Item:
    caption = captions[key]
    mask = read_labels(path)
    if mask.shape != shape:
        raise UserError(f"{path}: {mask.shape[1]}x{mask.shape[0]}, its image {shape[1]}x{shape[0]}; resize it (nearest)")
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high > len(caption.phrases):
        raise UserError(f"{path}: value {min(low, 0) or high}, but the caption of {key} has {len(caption.phrases)} phrases"
                        "; a mask holds k where the k-th should be, else 0")  # fmt: skip
    things = tuple(_thing(caption, k) for k in np.unique(mask).tolist() if k)
    return Item(key, np.zeros((*shape, 3), np.uint8), caption.text, None, things, mask.astype(np.uint8))


def _thing(caption: Caption, label: int) -> SceneObject:
    phrase = caption.phrases[label - 1]
    words = phrase.lower().split()
    colour = next((name for name in OBJECT_COLOURS if name in words), "")
    fill = next((name for name in FILLS if name in words), "")
    start = caption.text.index(phrase)
    return SceneObject(label, words[-1] if words else "", colour, fill, (start, start + len(phrase)))
