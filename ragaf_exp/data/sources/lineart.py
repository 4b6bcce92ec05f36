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
from ragaf_exp.data.sources.flatting import Area, centre, colour_areas, place_name
from ragaf_exp.data.sources.palette import BACKGROUND_NAMES, OBJECT_NAMES
from ragaf_exp.data.split import SPLITS, check_counts, check_shares, check_size, split_id, split_lists
from ragaf_exp.regions.enclosed import Enclosed

FILLS = ("plain", "striped", "dotted", "shaded")
FILL_SHARES = (0.55, 0.15, 0.15, 0.15)
OPEN = 0.6  # smallest share of an area that is not stroke, where its colour shows
LEAST = 12  # px of it
LARGEST = 64  # areas of a drawing that are looked at


@dataclass(frozen=True)
class Spot:
    """An area that can be coloured, as a caption needs it."""

    label: int  # region index
    place: str  # as of `place_name`
    centre: tuple[int, int]  # column and row, by which a caption orders areas


@dataclass(frozen=True)
class Coloured:
    """An area with its colour."""

    spot: Spot
    colour: str  # a name of OBJECT_COLOURS
    fill: str  # of FILLS

    @property
    def phrase(self) -> str:
        """Describe the area, as 'striped blue area at the top left'."""
        fill = "" if self.fill == "plain" else f"{self.fill} "
        return f"{fill}{self.colour} area {self.spot.place}"


@dataclass(frozen=True)
class Drawing:
    """A drawing and its areas."""

    strokes: np.ndarray  # (H,W) float32 in [0,1], 1 = stroke
    labels: np.ndarray  # (H,W), region indices


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
        self._spots: dict[str, tuple[Spot, ...]] = {}  # of each drawing that was read
        self._room = int(cache_mb * 2**20 / (6 * size * size))
        self._sums: dict[Path, str] = {}  # sha256 of the files that were read

    def split(self, name: str) -> Sequence[Item]:
        """Return the items of "train", "val" or "test". Raises UserError for another name."""
        split_id(name)
        length = self.lengths[name] if self.names[name] else 0
        return LazyItems(partial(self._item, name), length, partial(self._caption, name))

    def manifest(self) -> Manifest:
        """Return the manifest of the drawings, with checksums of those that were read."""
        names = sorted({name for some in self.names.values() for name in some})
        return manifest([[name] for name in names], {name: self.root / name for name in names}, self._sums)

    def _item(self, split: str, index: int) -> Item:
        rng, name, background, coloured = self._layout(split, index)
        drawing = self._drawing(name)
        areas = [Area(drawing.labels == one.spot.label, one.colour, one.fill) for one in coloured]
        image = colour_areas(drawing.strokes, areas, background, rng)
        caption, spans = _caption_of(coloured, background)
        object_map = np.zeros((self.size, self.size), np.uint8)
        for label, area in enumerate(areas, 1):
            object_map[area.mask & (drawing.strokes < 0.5)] = label
        things = [(one.spot.place, one.colour, "" if one.fill == "shaded" else one.fill) for one in coloured]
        key = f"lineart{self.seed}-{split}-{index}"
        return Item(key, image, caption, drawing.strokes, annotate(things, spans), object_map)

    def _caption(self, split: str, index: int) -> str:
        _, _, background, coloured = self._layout(split, index)
        return _caption_of(coloured, background)[0]

    def _layout(self, split: str, index: int) -> tuple[np.random.Generator, str, str, list[Coloured]]:
        """Sample an item without colouring it: generator, the drawing's name, background, areas in the caption's order."""
        rng = np.random.default_rng([self.seed, split_id(split), index])
        name = self._usable(split, index)
        spots = self._spots[name]
        count = int(rng.integers(1, min(self.max_areas, len(spots)) + 1))
        background = BACKGROUND_NAMES[int(rng.integers(len(BACKGROUND_NAMES)))]
        coloured = [_coloured(rng, spot) for spot in spots[:count]]
        return rng, name, background, sorted(coloured, key=lambda one: one.spot.centre)

    def _usable(self, split: str, index: int) -> str:
        """Name of the drawing of this index, or of the next one with an enclosed area."""
        names = self.names[split]
        for step in range(len(names)):
            name = names[(index + step) % len(names)]
            if name not in self._spots:
                self._drawing(name)
            if self._spots[name]:
                return name
        raise UserError(f"data.root={self.root}: no drawing of the {split} split encloses an area; give drawings with "
                        "closed outlines")  # fmt: skip

    def _drawing(self, name: str) -> Drawing:
        if name in self._drawings:
            return self._drawings[name]
        path = self.root / name
        strokes = fit_drawing(read_drawing(path, self.polarity), self.size, self.fit)
        self._sums.setdefault(path, checksum(path))
        regions = self._find(strokes)
        self._spots.setdefault(name, _spots(strokes, regions))
        drawing = Drawing(strokes, regions.labels)
        if len(self._drawings) < self._room:
            self._drawings[name] = drawing
        return drawing


def _spots(strokes: np.ndarray, regions: Regions) -> tuple[Spot, ...]:
    """The regions that show a colour between their strokes, the largest first, without the background."""
    free, spots = strokes < 0.5, []
    for label in range(regions.count):
        mask = regions.labels == label
        if label != regions.background and np.count_nonzero(free & mask) >= max(LEAST, OPEN * np.count_nonzero(mask)):
            spots.append(Spot(label, place_name(mask), centre(mask)))
    return tuple(spots)


def _coloured(rng: np.random.Generator, spot: Spot) -> Coloured:
    """An area in a random fill and colour."""
    fill = str(rng.choice(FILLS, p=FILL_SHARES))
    return Coloured(spot, OBJECT_NAMES[int(rng.integers(len(OBJECT_NAMES)))], fill)


def _caption_of(coloured: Sequence[Coloured], background: str) -> tuple[str, list[tuple[int, int]]]:
    return list_caption([article(one.phrase) for one in coloured], background)
