"""Real drawings from OpenMoji: single emoji, or scenes with exact masks and captions that name each object."""

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
from ragaf_exp.core.types import Item, SceneObject
from ragaf_exp.data.manifest import Manifest, manifest
from ragaf_exp.data.sources.captions import annotate, article, counted, list_caption
from ragaf_exp.data.sources.compose import SIDES, Layout, place_boxes
from ragaf_exp.data.sources.emoji import (
    BASE,
    FORMS,
    Art,
    Emoji,
    art_files,
    filled_share,
    find_form,
    noun,
    read_art,
    read_catalogue,
    recolour,
)
from ragaf_exp.data.sources.palette import BACKGROUND_NAMES, OBJECT_NAMES, nearest_colour
from ragaf_exp.data.sources.records import Record
from ragaf_exp.data.split import SPLITS, check_counts, check_shares, check_size, split_id, split_of

FILLED = 0.2  # smallest share of interior in an emoji's box, where its colour matters
STORED = 40_000_000  # pixels of decoded emoji that are kept in memory, of 15 bytes
ATTEMPTS = 8  # compositions tried until each object shows its colour at the requested size


class OpenMoji:
    """Items from OpenMoji's files: black/HEX.png, color/HEX.png, openmoji.json.

    An emoji always belongs to the same split, by the hash of its hexcode. Object masks cover the opaque part of the
    colour picture; with `scenes` or `recolour`, emoji without enough filled area are left out.

    Args:
        root: The folder of OpenMoji's files.
        size: Side of the square images, in pixels.
        seed: Seed of layouts, colours and backgrounds.
        scenes: Compose several emoji, named in the caption from left to right. Otherwise one emoji fills the image:
            train repeats them on other backgrounds, val and test hold each at most once.
        recolour: Give each object a random palette colour, and name it in the caption.
        min_objects: Smallest number of objects in a scene.
        max_objects: Largest number of objects in a scene.
        train: Number of training items.
        val: Number of validation items.
        test: Number of test items.
        val_share: Share of the emoji for val, in [0, 1).
        test_share: Share of the emoji for test, in [0, 1).
        groups: OpenMoji's groups to use; by default animals, food, places, objects and activities.
        art: Form of the files: "flat" (black/HEX.png), "72" (black/72x72/), "618" or "svg" (as in the npm package), or
            "auto" for one that suffices for the size.

    Raises:
        UserError: A value is invalid, or `root` does not hold these files.
    """

    def __init__(
        self,
        root: str = "",
        size: limits.Size = 64,
        seed: limits.Seed = 0,
        scenes: bool = False,
        recolour: bool = False,
        min_objects: limits.Objects = 1,
        max_objects: limits.Objects = 4,
        train: limits.Items = 8000,
        val: limits.Items = 256,
        test: limits.Items = 256,
        val_share: limits.ShareBelowOne = 0.1,
        test_share: limits.ShareBelowOne = 0.15,
        groups: list[str] | None = None,
        art: str = "auto",
    ) -> None:
        check_size(size)
        check_counts(seed=seed, train=train, val=val, test=test)
        check_shares(val_share, test_share)
        if not 1 <= min_objects <= max_objects:
            raise UserError(f"data.min_objects={min_objects}: must be from 1 to data.max_objects={max_objects}")
        if max_objects > max(SIDES):
            raise UserError(f"data.max_objects={max_objects}: must be at most {max(SIDES)}")
        self.root, self.size, self.seed, self.scenes, self.recolour = root, size, seed, scenes, recolour
        self.min_objects, self.max_objects = min_objects, max_objects
        self.lengths = dict(zip(SPLITS, (train, val, test), strict=True))
        self._arts: dict[str, Art] = {}
        self._sums: dict[Path, str] = {}  # sha256 of the files that were read
        self._form = find_form(root, art, size)
        self._side = 0 if self._form == FORMS["flat"] else max(size, BASE)
        usable = self._catalogue = read_catalogue(root, groups, self._form)
        if scenes or recolour:
            usable = [emoji for emoji in usable if filled_share(self._art(emoji.code)) >= FILLED]
        self.emoji = {name: [e for e in usable if split_of(e.code, val_share, test_share) == name] for name in SPLITS}

    def split(self, name: str) -> Sequence[Item]:
        """Return the items of "train", "val" or "test". Raises UserError for another name or too few emoji in it."""
        split_id(name)
        emoji, length = self.emoji[name], self.lengths[name]
        if self.scenes:
            if length and len(emoji) < self.max_objects:
                raise UserError(f"data.root={self.root}: {len(emoji)} usable emoji in {name}; use more data.groups")
            return LazyItems(partial(self._scene, name), length)
        count = min(length, len(emoji)) if name != "train" else length if emoji else 0
        return LazyItems(partial(self._alone, name), count)

    @property
    def records(self) -> list[Record]:
        """The catalogue as records, for an audit."""
        return [self._record(emoji) for emoji in self._catalogue]

    def records_of(self, name: str) -> list[Record]:
        """Return the emoji of "train", "val" or "test" as records."""
        return [self._record(emoji) for emoji in self.emoji[name]]

    def read(self, record: Record) -> tuple[np.ndarray, np.ndarray | None]:
        """Read an emoji on white, and its line art. Raises UserError."""
        art = read_art(self.root, record.key, self._form, self._side)
        image = 255 * (1 - art.cover[..., None]) + art.rgb * art.cover[..., None]
        return np.rint(image).astype(np.uint8), art.ink

    def _record(self, emoji: Emoji) -> Record:
        colour, black = (path.relative_to(self.root).as_posix() for path in art_files(self.root, emoji.code, self._form))
        return Record(emoji.code, colour, black, (emoji.name,))

    def manifest(self) -> Manifest:
        """Return the manifest of the emoji and their files, with checksums of those that were read."""
        paths = [path for emoji in self._catalogue for path in art_files(self.root, emoji.code, self._form)]
        names = {path.relative_to(self.root).as_posix(): path for path in paths}
        return manifest([[emoji.code, emoji.name] for emoji in self._catalogue], names, self._sums)

    def _art(self, code: str) -> Art:
        """Decode an emoji's pictures, once."""
        if code in self._arts:
            return self._arts[code]
        art = read_art(self.root, code, self._form, self._side)
        self._sums |= {path: checksum(path) for path in art_files(self.root, code, self._form) if path not in self._sums}
        art = art.cropped() if self.scenes else art
        if len(self._arts) * len(art.ink) ** 2 < STORED:
            self._arts[code] = art
        return art

    def _alone(self, split: str, index: int) -> Item:
        rng = np.random.default_rng([self.seed, split_id(split), index])
        named = self._named(self.emoji[split][index % len(self.emoji[split])], rng)
        background = _background(rng)
        layout = Layout(self.size, background)
        layout.add(named.art, 0, 0, self.size, self.size)
        caption = f"{named.phrase} on {article(background)} background"
        return self._item(split, index, layout, caption, [named], [(0, len(named.phrase))])

    def _scene(self, split: str, index: int) -> Item:
        rng = np.random.default_rng([self.seed, split_id(split), index])
        for _ in range(ATTEMPTS):
            item = self._compose(split, index, rng)
            if not self.recolour or all(shows(item, thing) for thing in item.objects):
                break
        return item

    def _compose(self, split: str, index: int, rng: np.random.Generator) -> Item:
        count = int(rng.integers(self.min_objects, self.max_objects + 1))
        picks = rng.choice(len(self.emoji[split]), count, replace=False)
        named = [self._named(self.emoji[split][i], rng) for i in picks]
        boxes = place_boxes(rng, np.array([one.art.cover.shape for one in named]), self.size)
        order = np.argsort(boxes[:, 1] + boxes[:, 3] / 2)
        named = [named[i] for i in order]
        background = _background(rng)
        layout = Layout(self.size, background)
        for one, box in zip(named, boxes[order], strict=True):
            layout.add(one.art, *box.tolist())
        caption, spans = list_caption([counted(one.phrase) for one in named], background)
        return self._item(split, index, layout, caption, named, spans)

    def _named(self, emoji: Emoji, rng: np.random.Generator) -> _Named:
        art = self._art(emoji.code)
        if not self.recolour:
            return _Named(art, emoji.name, "")
        colour = OBJECT_NAMES[int(rng.integers(len(OBJECT_NAMES)))]
        return _Named(recolour(art, colour), noun(emoji.name), colour)

    def _item(
        self,
        split: str,
        index: int,
        layout: Layout,
        caption: str,
        named: list[_Named],
        spans: list[tuple[int, int]],
    ) -> Item:
        key = f"openmoji{self.seed}-{split}-{index}"
        objects = annotate([(one.noun, one.colour, "") for one in named], spans)  # shaded as drawn
        return Item(key, layout.image(), caption, layout.drawing, objects, layout.object_map)


def shows(item: Item, thing: SceneObject) -> bool:
    """Whether an object's pixels away from strokes have, on average, the colour that the caption names."""
    inside = (item.object_map == thing.label) & (item.drawing < 0.3)
    return int(inside.sum()) >= 4 and nearest_colour(item.image[inside].mean(0) / 255) == thing.colour


@dataclass(frozen=True)
class _Named:
    """An emoji in a scene; `colour` is "" if it is not recoloured."""

    art: Art
    noun: str
    colour: str

    @property
    def phrase(self) -> str:
        return f"{self.colour} {self.noun}".strip()


def _background(rng: np.random.Generator) -> str:
    return BACKGROUND_NAMES[int(rng.integers(len(BACKGROUND_NAMES)))]
