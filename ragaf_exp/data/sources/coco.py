"""COCO 2017 (Lin et al. 2014): photos with five captions each, and masks of the things that captions name.

    root/train2017/000000000009.jpg  root/val2017/...
    root/annotations/captions_train2017.json  instances_train2017.json
    root/annotations/panoptic_train2017.json  panoptic_train2017/000000000009.png   optional: masks of stuff as well
    root/stuffthingmaps/train2017/000000000009.png                                  optional: masks of stuff

There are no drawings: sketches are extracted.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.garbage import collection_paused
from ragaf_exp.core.types import Caption, Item, SceneObject
from ragaf_exp.data.decode import TURNED, orientation
from ragaf_exp.data.fit import fit_photo
from ragaf_exp.data.images import read_image
from ragaf_exp.data.jpeg import jpeg_content
from ragaf_exp.data.listing import by_stem
from ragaf_exp.data.sources.annotation_index import read_captions
from ragaf_exp.data.sources.coco_things import Spans, Things, things_of
from ragaf_exp.data.sources.mask_maps import TURNS
from ragaf_exp.data.sources.names import normal
from ragaf_exp.data.sources.records import Record, RecordSource, caption_of, key_of, root_folder

log = logging.getLogger(__name__)
LAYOUT = "the folder that holds train2017/ and val2017/ with annotations/captions_*2017.json"
PARTS = ("train", "val")
CAPTIONS = ("sampled", "all", "first")
SAMPLE = 2000  # images whose captions the logged coverage counts
LEAST = 0.001  # of the pixels: things with smaller masks are no objects


class Coco(RecordSource):
    """Photos with captions. val2017 is the test split, and val is a share of train2017; a part alone is split by hash.

    Objects are the annotated things whose category, its plural or a synonym the caption names; all things of a category
    are one object, whose span is the first such word.

    Args:
        root: The folder of the images and annotations.
        size: Side of the square images, in pixels; of the buckets' square with `buckets`.
        year: Of the release, in the names of folders and files.
        captions: "sampled" trains on one of each image's captions, by seed and step; "all" makes each an item; "first".
        objects: Read masks of things that captions name, where annotations are there.
        fit: "crop" takes the central square, "pad" the whole image.
        on_error: "raise" or "skip" for listed images that are missing.
        check: Decode every file at the start.
        val_share: Share of train2017 for val, in [0, 1).
        test_share: Share of the images for test, in [0, 1), where one of the two parts is missing.
        buckets: Fit each image to the size nearest its aspect instead of a square (see data.buckets).
        upscale: With buckets: enlarge images that are smaller than their bucket.
        crop_input: The networks get what is cut off each image as an input.

    Raises:
        UserError: A value is invalid, or the layout is another.
    """

    def __init__(
        self,
        root: str = "",
        size: limits.Size = 256,
        year: limits.Year = 2017,
        captions: str = "sampled",
        objects: bool = True,
        fit: str = "crop",
        on_error: str = "raise",
        check: bool = False,
        val_share: limits.ShareBelowOne = 0.01,
        test_share: limits.ShareBelowOne = 0.1,
        buckets: bool = False,
        upscale: bool = False,
        crop_input: bool = False,
    ) -> None:
        folder = root_folder(root, LAYOUT)
        if captions not in CAPTIONS:
            raise UserError(f"data.captions={captions}: must be {', '.join(CAPTIONS)}")
        self.every_caption, self.samples_captions = captions == "all", captions == "sampled"
        parts = [f"{part}{year}" for part in PARTS if (folder / f"{part}{year}").is_dir()]
        if not parts:
            raise UserError(f"data.root={root}: neither train{year} nor val{year} in it; data.root must be {LAYOUT}")
        with collection_paused():
            records = [record for part in parts for record in list_part(folder, part, len(parts) > 1)]
        self.things: dict[str, Things] = {}
        if objects:
            self.things = {part: things for part in parts if (things := things_of(folder, part)) is not None}
        super().__init__(folder, records, size, fit, "auto", (), on_error, check, val_share, test_share,
                         buckets, upscale, crop_input)  # fmt: skip
        if self.things:
            log.info("%s: %s", root, self.coverage(SAMPLE))

    def item(self, record: Record, number: int = 0) -> Item:
        """Read an item with the objects that its caption names; with all captions where training samples them."""
        path = self.root / record.image
        content = jpeg_content(path)
        image = fit_photo(read_image(path, content, self.side_of(record)), self.size_of(record), self.fit)
        item = Item(key_of(record, number), image, caption_of(record, number), crop=self.crop_of(record))
        texts = list(record.captions) if self.samples_captions else [item.caption]
        captions, object_map = self._objects(record, texts, content)
        if not captions:
            return item
        several = tuple(captions) if len(captions) > 1 else ()
        return replace(item, objects=captions[0].objects, object_map=object_map, captions=several)

    def _objects(self, record: Record, texts: list[str], content: bytes | None) -> tuple[list[Caption], np.ndarray | None]:
        """Locate the annotated things that captions name, and draw their masks (H, W) uint8 if there are any."""
        things = self.things.get(record.key.partition("/")[0])
        spans = things.mentions(record.place, texts) if things else [{} for _ in texts]
        labels = {name: label for label, name in enumerate(sorted({name for each in spans for name in each}), 1)}
        if things is None or not labels:
            return [Caption(text) for text in texts], None
        object_map = self._draw(record, things, labels, content)
        sample = np.ascontiguousarray(object_map[::2, ::2])
        visible = {name: label for name, label in labels.items()
                   if np.count_nonzero(sample == label) >= LEAST * sample.size}  # fmt: skip
        return [Caption(text, _named(visible, each)) for text, each in zip(texts, spans, strict=True)], object_map

    def coverage(self, count: int) -> str:
        """Describe how many captions name an annotated thing, among the first `count` usable images."""
        named = things = captions = 0
        for record in self.usable[:count]:
            part = record.key.partition("/")[0]
            for mentioned in self.things[part].mentions(record.place, record.captions) if part in self.things else ():
                captions, named, things = captions + 1, named + bool(mentioned), things + len(mentioned)
        share = named / max(captions, 1)
        return f"{share:.0%} of {captions} captions name annotated things, {things / max(named, 1):.2g} each on average"

    def _draw(self, record: Record, things: Things, labels: dict[str, int], content: bytes | None) -> np.ndarray:
        """Draw masks as the image, of this content, is turned by EXIF: annotations refer to the pixels as stored."""
        size, turned = self.size_of(record), orientation(self.root / record.image, content)
        stored = things.draw(record.place, labels, size[::-1] if turned in TURNED else size, self.fit)
        return np.ascontiguousarray(TURNS[turned](stored)) if turned in TURNS else stored


def _named(labels: dict[str, int], spans: Spans) -> tuple[SceneObject, ...]:
    return tuple(SceneObject(labels[name], name, "", "", span) for name, span in spans.items() if name in labels)


def list_part(root: Path, part: str, both: bool) -> list[Record]:
    """List the records of a part, as train2017.

    Args:
        root: The data set's folder.
        part: Name of the folder of images.
        both: Whether the other part is there too, so that this one has its own split.

    Raises:
        UserError: There are no captions, or their file is damaged.
    """
    path = root / "annotations" / f"captions_{part}.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch COCO's annotations_trainval into {root}")
    there = set(by_stem(root / part).values())
    split = "test" if both and part.startswith("val") else ""
    return [
        Record(
            f"{part}/{normal(os.path.splitext(os.path.basename(name))[0])}",
            f"{part}/{name}",
            captions=tuple(texts),
            split=split,
            problem="" if name in there else f"{root / part / name}: no such file",
            place=number,
        )
        for number, name, texts in read_captions(path)
    ]
