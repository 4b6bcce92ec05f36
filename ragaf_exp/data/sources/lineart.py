"""Any folder of line drawings as training data: enclosed areas filled with named colours, and a caption made to match.

This is the flatting of comics and colouring books. Colours, fills and captions are random, the strokes are the drawing's,
so that one folder gives any number of items whose regions and phrases are known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item, Regions
from ragaf_exp.data.fit import check_fit, fit_drawing
from ragaf_exp.data.images import read_drawing
from ragaf_exp.data.listing import listed
from ragaf_exp.data.manifest import Manifest, manifest
from ragaf_exp.data.sources.captions import annotate, article, list_caption
from ragaf_exp.data.sources.flatting import Area, colour_areas, place_name
from ragaf_exp.data.sources.palette import BACKGROUND_NAMES, OBJECT_NAMES
from ragaf_exp.data.split import SPLITS, check_counts, check_shares, check_size, split_id, split_lists
from ragaf_exp.regions.enclosed import Enclosed

FILLS = ("plain", "striped", "dotted", "shaded")
FILL_SHARES = (0.55, 0.15, 0.15, 0.15)
OPEN = 0.6  # smallest share of an area that is not stroke, where its colour shows
LEAST = 12  # px of it
LARGEST = 64  # areas of a drawing that are looked at


@dataclass(frozen=True)
class Drawing:
    """A drawing with the areas that can be coloured, the largest first."""

    strokes: np.ndarray  # (H,W) float32 in [0,1], 1 = stroke
    regions: Regions
    areas: tuple[int, ...]  # region indices, without the background


class LineArt:
    """Coloured line drawings from a folder and its subfolders; a drawing always belongs to the same split.

    Drawings without an enclosed area are passed over.

    Args:
        root: The folder.
        size: Side of the square images, in pixels.
        seed: Seed of colours, fills and captions.
        train: Number of training items; drawings come again in other colours.
        val: Number of validation items.
        test: Number of test items.
        max_areas: Largest number of areas that are coloured and named, the largest of a drawing.
        polarity: Of the drawings: "auto", "dark" or "light" strokes.
        fit: "pad" takes the whole drawing, "crop" its central square.
        val_share: Share of the drawings for val, in [0, 1).
        test_share: Share of the drawings for test, in [0, 1).
        cache_mb: MiB of memory for prepared drawings, so that each is decoded once.

    Raises:
        UserError: A value is invalid, or the folder holds no picture.
    """

    def __init__(
        self, root: str = "", size: limits.Size = 64, seed: limits.Seed = 0, train: limits.Items = 8000,
        val: limits.Items = 256, test: limits.Items = 256, max_areas: limits.Objects = 5, polarity: str = "auto",
        fit: str = "pad", val_share: limits.ShareBelowOne = 0.1, test_share: limits.ShareBelowOne = 0.15,
        cache_mb: limits.Megabytes = 256,
    ) -> None:  # fmt: skip
        check_size(size)
        check_fit(fit)
        check_counts(seed=seed, train=train, val=val, test=test)
        check_shares(val_share, test_share)
        if not root or not Path(root).is_dir():
            raise UserError(f"data.root={root}: no such folder; give the folder of the line drawings")
        self.root, self.size, self.seed, self.max_areas = Path(root), size, seed, max_areas
        self.polarity, self.fit = polarity, fit
        self.lengths = dict(zip(SPLITS, (train, val, test), strict=True))
        names = [path.as_posix() for path in listed(self.root)[0]]
        if not names:
            raise UserError(f"data.root={root}: holds no pictures; give the folder of the line drawings")
        self.names, _ = split_lists(names, val_share, test_share)
        self._find = Enclosed(max_regions=LARGEST)
        self._drawings: dict[str, Drawing] = {}
        self._room = int(cache_mb * 2**20 / (6 * size * size))
        self._sums: dict[Path, str] = {}  # sha256 of the files that were read

    def split(self, name: str) -> Sequence[Item]:
        """Return the items of "train", "val" or "test". Raises UserError for another name."""
        split_id(name)
        return LazyItems(partial(self._item, name), self.lengths[name] if self.names[name] else 0)

    def manifest(self) -> Manifest:
        """Return the manifest of the drawings, with checksums of those that were read."""
        names = sorted({name for some in self.names.values() for name in some})
        return manifest([[name] for name in names], {name: self.root / name for name in names}, self._sums)

    def _item(self, split: str, index: int) -> Item:
        rng = np.random.default_rng([self.seed, split_id(split), index])
        drawing = self._usable(split, index)
        count = int(rng.integers(1, min(self.max_areas, len(drawing.areas)) + 1))
        background = BACKGROUND_NAMES[int(rng.integers(len(BACKGROUND_NAMES)))]
        areas = [_area(rng, drawing.regions.labels, label) for label in drawing.areas[:count]]
        areas.sort(key=lambda area: area.centre)
        image = colour_areas(drawing.strokes, areas, background, rng)
        caption, spans = list_caption([article(area.phrase) for area in areas], background)
        object_map = np.zeros((self.size, self.size), np.uint8)
        for label, area in enumerate(areas, 1):
            object_map[area.mask & (drawing.strokes < 0.5)] = label
        fills = ["" if area.fill == "shaded" else area.fill for area in areas]
        things = [(area.place, area.colour, fill) for area, fill in zip(areas, fills, strict=True)]
        key = f"lineart{self.seed}-{split}-{index}"
        return Item(key, image, caption, drawing.strokes, annotate(things, spans), object_map)

    def _usable(self, split: str, index: int) -> Drawing:
        """The drawing of this index, or the next one with an enclosed area."""
        names = self.names[split]
        for step in range(len(names)):
            drawing = self._drawing(names[(index + step) % len(names)])
            if drawing.areas:
                return drawing
        raise UserError(f"data.root={self.root}: no drawing of the {split} split encloses an area; give drawings with "
                        "closed outlines")  # fmt: skip

    def _drawing(self, name: str) -> Drawing:
        if name in self._drawings:
            return self._drawings[name]
        path = self.root / name
        strokes = fit_drawing(read_drawing(path, self.polarity), self.size, self.fit)
        self._sums.setdefault(path, checksum(path))
        regions = self._find(strokes)
        drawing = Drawing(strokes, regions, _colourable(strokes, regions))
        if len(self._drawings) < self._room:
            self._drawings[name] = drawing
        return drawing


def _colourable(strokes: np.ndarray, regions: Regions) -> tuple[int, ...]:
    """The regions that show a colour between their strokes, the largest first."""
    free = strokes < 0.5
    shown = [np.count_nonzero(free & (regions.labels == i)) for i in range(regions.count)]
    total = [np.count_nonzero(regions.labels == i) for i in range(regions.count)]
    return tuple(i for i in range(regions.count)
                 if i != regions.background and shown[i] >= max(LEAST, OPEN * total[i]))  # fmt: skip


def _area(rng: np.random.Generator, labels: np.ndarray, label: int) -> Area:
    """An area with a random colour and fill."""
    mask = labels == label
    fill = str(rng.choice(FILLS, p=FILL_SHARES))
    return Area(mask, OBJECT_NAMES[int(rng.integers(len(OBJECT_NAMES)))], fill, place_name(mask))
