"""Quick, Draw! (Ha and Eck 2017): drawings by category, as simplified or raw strokes, single or composed into scenes.

root/cat.ndjson   full_simplified_cat.ndjson   full_raw_cat.ndjson   a drawing per line
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item
from ragaf_exp.data.listing import by_stem
from ragaf_exp.data.sources.captions import annotate, counted, join_phrases
from ragaf_exp.data.sources.compose import SIDES, place_boxes
from ragaf_exp.data.sources.names import normal
from ragaf_exp.data.sources.records import Record, RecordSource, root_folder
from ragaf_exp.data.sources.strokes import alone, draw_strokes, extent, normalised, silhouette
from ragaf_exp.data.split import SPLITS, split_id

LAYOUT = "the folder of Quick, Draw!'s .ndjson files, one for each category"
PREFIXES = ("full_simplified_", "full_raw_", "full-simplified-", "full-raw-", "full_binary_")
UNRECOGNISED = "unrecognised"
SPELLINGS = {"effiel tower": "Eiffel tower", "eiffel tower": "Eiffel tower", "the eiffel tower": "Eiffel tower"}


class QuickDraw(RecordSource):
    """Drawings with captions; the image is the drawing in black on white.

    Args:
        root: The folder of .ndjson files.
        size: Side of the square images, in pixels.
        categories: Categories to use; empty for all files.
        per_category: Most drawings of each category; 0 for all.
        drop: Flags whose drawings are left out: unrecognised, those that the game did not recognise.
        scenes: Compose 1 to `max_objects` drawings, named in the caption from left to right, with masks.
        max_objects: Largest number of drawings in a scene.
        train: Number of scenes for training.
        val: Number of scenes for val.
        test: Number of scenes for test.
        seed: Seed of the scenes.
        stroke: Width of the strokes, relative to the image's side.
        caption: Caption of a single drawing, with {} for the category and its article.
        on_error: "raise" or "skip" for lines that hold no drawing.
        val_share: Share of the drawings for val, in [0, 1).
        test_share: Share of the drawings for test, in [0, 1).

    Raises:
        UserError: A value is invalid, or the files are not Quick, Draw!'s.
    """

    def __init__(
        self,
        root: str = "",
        size: limits.Size = 64,
        categories: list[str] | None = None,
        per_category: limits.Items = 2000,
        drop: limits.Flags = (UNRECOGNISED,),
        scenes: bool = False,
        max_objects: limits.Objects = 4,
        train: limits.Items = 8000,
        val: limits.Items = 256,
        test: limits.Items = 256,
        seed: limits.Seed = 0,
        stroke: limits.StrokeWidth = 0.0156,
        caption: str = "a drawing of {}",
        on_error: str = "raise",
        val_share: limits.ShareBelowOne = 0.1,
        test_share: limits.ShareBelowOne = 0.1,
    ) -> None:
        folder = root_folder(root, LAYOUT)
        if set(drop) - {UNRECOGNISED}:
            raise UserError(f"data.drop={list(drop)}: the only flag is {UNRECOGNISED}")
        if max_objects > max(SIDES):
            raise UserError(f"data.max_objects={max_objects}: must be at most {max(SIDES)}")
        self.scenes, self.max_objects, self.seed, self.width = scenes, max_objects, seed, stroke
        self.lengths = dict(zip(SPLITS, (train, val, test), strict=True))
        records = [
            record
            for name, file in _files(folder, categories).items()
            for record in _listed(folder, name, file, per_category, caption, bool(drop))
        ]
        super().__init__(folder, records, size, "pad", "dark", drop, on_error, False, val_share, test_share)

    def split(self, name: str) -> Sequence[Item]:
        """Return drawings or scenes of "train", "val" or "test". Raises UserError for another name, or too few drawings."""
        if not self.scenes:
            return super().split(name)
        split_id(name)
        if self.lengths[name] and len(self.records_of(name)) < self.max_objects:
            raise UserError(f"data.root={self.root}: {len(self.records_of(name))} drawings in {name}; "
                            f"raise data.{name}_share or data.per_category")  # fmt: skip
        return LazyItems(partial(self._scene, name), self.lengths[name], partial(self._caption, name))

    def read(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Draw a record: image (size, size, 3) uint8 and drawing (size, size) float32. Raises UserError."""
        drawing = alone(self._strokes(record), self.size, width=self.width)
        return _on_white(drawing), drawing

    def _strokes(self, record: Record) -> list[np.ndarray]:
        with (self.root / record.drawing).open("rb") as file:
            file.seek(record.place)
            line = file.readline()
        return normalised([np.stack(stroke[:2], -1) for stroke in json.loads(line)["drawing"] if stroke[0]])

    def _scene(self, split: str, index: int) -> Item:
        drawing = np.zeros((self.size, self.size), np.float32)
        object_map = np.zeros((self.size, self.size), np.uint8)
        things = self._layout(split, index)
        for label, (_, strokes, box) in enumerate(things, 1):
            top, left, height, breadth = box.tolist()
            tall, wide = _extent(strokes)
            scale = min(height / tall, breadth / wide)
            part = draw_strokes(strokes, self.size, scale, (left, top), self.width)
            object_map[silhouette(part)] = label
            drawing = np.maximum(drawing, part)
        names = [_category(record) for record, *_ in things]
        caption, spans = _scene_caption(names)
        objects = annotate([(name, "", "") for name in names], spans)
        return Item(f"quickdraw{self.seed}-{split}-{index}", _on_white(drawing), caption, drawing, objects, object_map)

    def _caption(self, split: str, index: int) -> str:
        return _scene_caption([_category(record) for record, *_ in self._layout(split, index)])[0]

    def _layout(self, split: str, index: int) -> list[tuple[Record, list[np.ndarray], np.ndarray]]:
        """Records of a scene from left to right, each with its strokes and its box (4,)."""
        rng = np.random.default_rng([self.seed, split_id(split), index])
        records = self.records_of(split)
        picks = rng.choice(len(records), int(rng.integers(1, self.max_objects + 1)), replace=False)
        things = [(records[i], self._strokes(records[i])) for i in picks]
        boxes = place_boxes(rng, np.array([_extent(strokes) for _, strokes in things]), self.size)
        order = np.argsort(boxes[:, 1] + boxes[:, 3] / 2)
        return [(*things[i], boxes[i]) for i in order]


def _extent(strokes: list[np.ndarray]) -> np.ndarray:
    """Height and width (2,) of a drawing as a share of its larger side; a straight line counts as 0.2 wide."""
    return np.maximum(extent(strokes), 0.2)


def _scene_caption(names: list[str]) -> tuple[str, list[tuple[int, int]]]:
    return join_phrases([counted(name) for name in names], _links(len(names)), "a drawing of ")


def _links(count: int) -> list[str]:
    return [", "] * (count - 2) + [" and "] * (count > 1)


def _on_white(drawing: np.ndarray) -> np.ndarray:
    """Convert a drawing (H, W) in [0, 1] to black strokes on white, (H, W, 3) uint8."""
    return np.repeat(np.rint(255 * (1 - drawing)).astype(np.uint8)[..., None], 3, 2)


def _category(record: Record) -> str:
    name = record.key.rpartition("/")[0]
    return SPELLINGS.get(name.lower(), name)


def _files(root: Path, categories: list[str] | None) -> dict[str, str]:
    """Map categories to their files. Raises UserError if there are none, or one is missing."""
    files = {}
    for stem, file in by_stem(root, (".ndjson",)).items():
        name = stem
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        files[name.replace("_", " ").replace("%20", " ")] = file
    if not files:
        raise UserError(f"data.root={root}: no .ndjson files; data.root must be {LAYOUT}")
    for name in categories or ():
        if name not in files:
            raise UserError(f"data.categories: no file of {name} in {root}; known are {', '.join(sorted(files)[:8])} ...")
    return {name: files[name] for name in categories or sorted(files)}


def _listed(root: Path, name: str, file: str, most: int, caption: str, recognised: bool) -> list[Record]:
    """List the first drawings of a file; with `recognised`, only recognised ones count towards `most`."""
    text = caption.replace("{}", counted(SPELLINGS.get(name.lower(), name)))
    records: list[Record] = []
    usable, place = 0, 0
    with (root / file).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                record = _record(name, file, text, number, place, line)
                records.append(record)
                usable += not record.problem and not (recognised and record.flags)
            place += len(line)
            if most and usable >= most:
                break
    return records


def _record(name: str, file: str, text: str, number: int, place: int, line: bytes) -> Record:
    key, flags, problem = f"{normal(name)}/line{number}", (), ""
    try:
        content: dict[str, Any] = json.loads(line)
        key = f"{normal(name)}/{content.get('key_id', f'line{number}')}"
        flags = () if content.get("recognized", True) else (UNRECOGNISED,)
        if not any(len(stroke) >= 2 and stroke[0] and len(stroke[0]) == len(stroke[1]) for stroke in content["drawing"]):
            problem = "it has no strokes"
    except (ValueError, KeyError, TypeError, AttributeError):
        problem = f"{file}: line {number} holds no drawing (key_id, word, drawing)"
    return Record(key, "", file, (text,), flags=flags, problem=problem, place=place)
