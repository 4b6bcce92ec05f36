"""Annotated things and stuff of COCO's images: panoptic segments where present, else instances and stuff maps."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.buckets import Size
from ragaf_exp.data.decode import read_labels
from ragaf_exp.data.listing import by_stem
from ragaf_exp.data.sources.annotation_index import AnnotationIndex
from ragaf_exp.data.sources.mask_maps import draw_annotations, read_panoptic, warp_nearest, window
from ragaf_exp.data.sources.mentions import concept, mentions
from ragaf_exp.data.sources.stuff_labels import STUFF

STUFF_FOLDERS = ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations/stuffthingmaps", ".")
UNLABELLED = 255
Spans = dict[str, tuple[int, int]]


class Things(Protocol):
    """The annotated things of a part's images, by concept."""

    def mentions(self, image: int, captions: Sequence[str]) -> list[Spans]:
        """Locate the first word for each annotated concept that each caption names."""

    def draw(self, image: int, labels: dict[str, int], size: Size, fit: str) -> np.ndarray:
        """Draw the masks of concepts as labels (H, W) uint8.

        Args:
            image: The image's id.
            labels: Concept -> label from 1.
            size: Height and width of the item, in pixels.
            fit: As in data.fit.
        """


def things_of(root: Path, part: str) -> Things | None:
    """Open the annotations of a part, as train2017; None without any."""
    folder = root / "annotations"
    if (folder / f"panoptic_{part}.json").is_file() and (folder / f"panoptic_{part}").is_dir():
        return Panoptic(folder / f"panoptic_{part}.json", folder / f"panoptic_{part}")
    if not (folder / f"instances_{part}.json").is_file():
        return None
    above = (root / name / part for name in STUFF_FOLDERS)
    stuff = next((path for path in above if next(path.glob("*.png"), None)), None)
    return Instances(folder / f"instances_{part}.json", stuff)


class _Annotated:
    """Categories, sizes and annotations of a COCO file."""

    def __init__(self, path: Path, more: dict[int, str] | None = None) -> None:
        self.index = AnnotationIndex(path)
        self.names = {number: concept(name) for number, name in self.index.names.items()} | (more or {})
        self.known = frozenset(self.names.values())

    def _ids(self, labels: dict[str, int]) -> dict[int, int]:
        """Map category ids to the labels of their concepts."""
        return {number: labels[name] for number, name in self.names.items() if name in labels}


class Instances(_Annotated):
    """Instances of an instances_*.json, with stuff from maps in a folder, where given.

    Args:
        path: The JSON file.
        stuff: Folder of PNG maps, which hold label - 1, and 255 for none.
    """

    def __init__(self, path: Path, stuff: Path | None) -> None:
        names = {number: concept(name) for number, name in STUFF.items()}
        super().__init__(path, names if stuff else None)
        self.stuff, self._maps = stuff, by_stem(stuff, (".png",)) if stuff else {}

    def mentions(self, image: int, captions: Sequence[str]) -> list[Spans]:
        things: Set[str] = {self.names[number] for number in self.index.categories(image).tolist() if number in self.names}
        if f"{image:012d}" in self._maps:
            things |= {concept(name) for name in STUFF.values()}
        return [mentions(caption, things, self.known) for caption in captions]

    def draw(self, image: int, labels: dict[str, int], size: Size, fit: str) -> np.ndarray:
        """Draw instances and then stuff.

        Args:
            image: The image's id.
            labels: Concept -> label from 1.
            size: Height and width of the item, in pixels.
            fit: As in data.fit.

        Returns:
            (H, W) uint8, 0 = none.
        """
        wanted = self._ids(labels)
        frame = window(*self.index.size(image), size, fit)
        annotations = [(wanted[a["category_id"]], a) for a in self.index.of(image, set(wanted))]
        drawn = draw_annotations(annotations, frame)
        if (file := self._maps.get(f"{image:012d}")) is None or self.stuff is None:
            return drawn
        stored = read_labels(self.stuff / file)
        table = np.zeros(max(UNLABELLED, int(stored.max())) + 1, np.uint8)
        for number, label in wanted.items():
            if number in STUFF:
                table[number - 1] = label
        stuff = warp_nearest(table[stored], frame)
        return np.where(drawn > 0, drawn, stuff).astype(np.uint8)


class Panoptic(_Annotated):
    """Things and stuff of a panoptic_*.json and its PNG files.

    Args:
        path: The JSON file.
        folder: The PNG files.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path)
        self.folder = folder

    def mentions(self, image: int, captions: Sequence[str]) -> list[Spans]:
        things = {self.names[segment["category_id"]] for segment in self._segments(image)}
        return [mentions(caption, things, self.known) for caption in captions]

    def draw(self, image: int, labels: dict[str, int], size: Size, fit: str) -> np.ndarray:
        """Draw panoptic segments.

        Args:
            image: The image's id.
            labels: Concept -> label from 1.
            size: Height and width of the item, in pixels.
            fit: As in data.fit.

        Returns:
            (H, W) uint8, 0 = none.
        """
        wanted = self._ids(labels)
        annotation = next(self.index.of(image), None)
        drawn = np.zeros(size, np.uint8)
        if annotation is None:
            return drawn
        path = self.folder / annotation["file_name"]
        if not path.is_file():
            raise UserError(f"{path}: no such file; unpack the panoptic PNG files, or set data.objects=false")
        ids = warp_nearest(read_panoptic(path), window(*self.index.size(image), size, fit))
        for segment in annotation["segments_info"]:
            if segment["category_id"] in wanted:
                drawn[ids == segment["id"]] = wanted[segment["category_id"]]
        return drawn

    def _segments(self, image: int) -> list[dict[str, Any]]:
        return next(self.index.of(image), {"segments_info": []})["segments_info"]
