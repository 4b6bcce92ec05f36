"""The Sketchy database (Sangkloy et al. 2016): photos of 125 classes, each drawn by several people.

    root/photo/tx_000000000000/CLASS/n02691156_58.jpg      photos, scaled to squares
    root/sketch/tx_000000000000/CLASS/n02691156_58-1.png   their sketches, scaled alike
    root/info/ or root/../info/                            optional: stats.csv, testset.txt, invalid-error.txt ...

Other tx_* folders hold photos and sketches that are moved or scaled differently, so that they don't match.
"""

from __future__ import annotations

import csv
import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.listing import by_stem, folders_in
from ragaf_exp.data.sources.captions import counted
from ragaf_exp.data.sources.names import normal
from ragaf_exp.data.sources.records import Record, RecordSource, root_folder

log = logging.getLogger(__name__)
LAYOUT = "the folder that holds photo/ and sketch/ (256x256 in Sketchy's archive)"
ALIGNED = "tx_000000000000"  # the only pair of folders with the same transformation
FLAGS = ("error", "ambiguous", "context", "pose")
COLUMNS = {"error": "Error?", "ambiguous": "Ambiguous?", "context": "Context?", "pose": "WrongPose?"}  # of stats.csv
SPOKEN = {"car (sedan)": "sedan car", "jack o lantern": "jack-o-lantern"}
TRUE = {"1", "true", "yes"}


class Sketchy(RecordSource):
    """Photos with hand-drawn sketches; each sketch is an item, and all sketches of a photo are in the same split.

    Args:
        root: The folder that holds photo/ and sketch/.
        size: Side of the square images, in pixels; of the buckets' square with `buckets`.
        photos: Folder of the photos in photo/.
        sketches: Folder of the sketches in sketch/.
        drop: Flags whose sketches are left out, of error, ambiguous, context and pose, where info/ is there.
        testset: Take the official test photos of info/testset.txt as the test split.
        extended: Folder of further photos without sketches, by class (EXTEND_image_sketchy); "" for none.
        caption: Caption of each photo, with {} for the class and its article.
        on_error: "raise" or "skip" for sketches without a photo, and photos without a sketch.
        check: Decode every file at the start.
        val_share: Share of the photos for val, in [0, 1).
        test_share: Share of the photos for test, in [0, 1), without `testset`.
        buckets: Fit each image to the size nearest its aspect instead of a square (see data.buckets).
        upscale: With buckets: enlarge images that are smaller than their bucket.
        crop_input: The networks get what is cut off each image as an input.

    Raises:
        UserError: A value is invalid, the folders are not aligned, or the layout is another.
    """

    def __init__(
        self,
        root: str = "",
        size: limits.Size = 256,
        photos: str = ALIGNED,
        sketches: str = ALIGNED,
        drop: limits.Flags = ("error",),
        testset: bool = False,
        extended: str = "",
        caption: str = "a photo of {}",
        on_error: str = "raise",
        check: bool = False,
        val_share: limits.ShareBelowOne = 0.1,
        test_share: limits.ShareBelowOne = 0.1,
        buckets: bool = False,
        upscale: bool = False,
        crop_input: bool = False,
    ) -> None:
        folder = root_folder(root, LAYOUT)
        _check_aligned_folders(photos, sketches)
        if unknown := set(drop) - set(FLAGS):
            raise UserError(f"data.drop: {sorted(unknown)[0]} is no flag of Sketchy; known are {', '.join(FLAGS)}")
        info = Info(folder)
        test = info.testset() if testset else frozenset()
        listed = [*_pairs(folder, photos, sketches), *_extended(folder, extended)]
        if not listed:
            raise UserError(f"data.root={root}: no classes in photo/{photos}; data.root must be {LAYOUT}")
        records = [_record(pair, caption, info, test) for pair in listed]
        super().__init__(folder, records, size, "crop", "dark", drop, on_error, check, val_share, test_share,
                         buckets, upscale, crop_input)  # fmt: skip


class Info:
    """The annotation in info/: flags and difficulty of sketches; empty where the folder is not there."""

    def __init__(self, root: Path) -> None:
        self.folder = next((path for path in (root / "info", root.parent / "info") if path.is_dir()), None)
        self.flags: dict[str, set[str]] = defaultdict(set)  # of a sketch's stem
        self.difficulty: dict[str, int] = {}
        if self.folder is not None:
            for flag in FLAGS:
                for stem in _stems_in(self.folder / f"invalid-{flag}.txt"):
                    self.flags[stem].add(flag)
            self._read_stats(self.folder / "stats.csv")

    def testset(self) -> frozenset[str]:
        """Read the stems of the official test photos. Raises UserError if there is no list."""
        stems = frozenset(_stems_in(self.folder / "testset.txt") if self.folder else ())
        if not stems:
            raise UserError("data.testset=true: no info/testset.txt in data.root or next to it; fetch Sketchy's info-06-04")
        return stems

    def _read_stats(self, path: Path) -> None:
        if not path.is_file():
            return
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            for number, row in enumerate(csv.DictReader(lines, skipinitialspace=True), 2):
                try:
                    stem = f"{row['ImageNetID'].strip()}-{row['SketchID'].strip()}"
                    self.difficulty[stem] = int(row["Difficulty"])
                except (KeyError, ValueError, AttributeError, TypeError):
                    missing = "has no ImageNetID, SketchID and Difficulty"
                    raise UserError(f"{path}: line {number} {missing}; fetch it again") from None
                self.flags[stem] |= {flag for flag, name in COLUMNS.items() if str(row.get(name, "")).lower() in TRUE}


def class_name(folder: str) -> str:
    """Convert a class folder's name to words: 'hot-air_balloon' to 'hot-air balloon', 'car_(sedan)' to 'sedan car'."""
    words = normal(folder).replace("_", " ").strip()
    return SPOKEN.get(words.lower(), words)


def _check_aligned_folders(photos: str, sketches: str) -> None:
    if (photos, sketches) != (ALIGNED, ALIGNED):
        key, name = ("photos", photos) if photos != ALIGNED else ("sketches", sketches)
        raise UserError(f"data.{key}={name}: photo/{photos} and sketch/{sketches} are not aligned; aligned are "
                        f"photo/{ALIGNED} and sketch/{ALIGNED}")  # fmt: skip


Pair = tuple[str, str, str, str]  # class, photo's and sketch's path ("" if missing), stem of the sketch, or of the photo


def _pairs(root: Path, photos: str, sketches: str) -> Iterator[Pair]:
    """Yield every sketch, and photos without sketches."""
    for part in (f"photo/{photos}", f"sketch/{sketches}"):
        if not (root / part).is_dir():
            raise UserError(f"data.root={root}: no folder {part}; data.root must be {LAYOUT}")
    above = root / "photo" / photos, root / "sketch" / sketches
    for name in sorted({*folders_in(above[0]), *folders_in(above[1])}):
        images, drawings = by_stem(above[0] / name), by_stem(above[1] / name)
        drawn = set()
        for stem, file in drawings.items():
            photo = stem.rpartition("-")[0]
            drawn.add(photo)
            image = f"photo/{photos}/{name}/{images[photo]}" if photo in images else ""
            yield name, image, f"sketch/{sketches}/{name}/{file}", stem
        yield from ((name, f"photo/{photos}/{name}/{images[stem]}", "", stem) for stem in images if stem not in drawn)


def _extended(root: Path, extended: str) -> Iterator[Pair]:
    """Yield the extended photos; those that have sketches are in photo/ as well, and left out."""
    if not extended:
        return
    folder = next((path for path in (root / extended, Path(extended)) if path.is_dir()), None)
    if folder is None:
        raise UserError(f"data.extended={extended}: no such folder, neither under {root} nor as given")
    for name in folders_in(folder):
        paired = by_stem(root / "photo" / ALIGNED / name)
        for stem, file in by_stem(folder / name).items():
            if stem not in paired:
                yield name, str(folder.absolute() / name / file), "extended", stem


def _record(pair: Pair, caption: str, info: Info, test: frozenset[str]) -> Record:
    name, image, drawing, stem = pair
    extended = drawing == "extended"
    photo = stem if extended or not drawing else stem.rpartition("-")[0]
    problem = "" if image and drawing else "it has no photo" if drawing else "it has no sketch"
    text = caption.replace("{}", counted(class_name(name)))
    return Record(
        f"{normal(name)}/{stem}",
        image,
        "" if extended else drawing,
        (text,),
        group=f"{normal(name)}/{photo}",
        split="test" if photo in test else "train" if test and extended else "",
        flags=tuple(flag for flag in FLAGS if flag in info.flags.get(stem, ())),
        difficulty=info.difficulty.get(stem),
        problem=problem,
    )


def _stems_in(path: Path) -> list[str]:
    """Read the stems in a list of files, one a line, with or without class folder and suffix."""
    if not path.is_file():
        return []
    names = (line.strip().replace("\\", "/").rpartition("/")[2] for line in path.read_text("utf-8", "replace").splitlines())
    return [name.partition(".")[0] for name in names if name]
