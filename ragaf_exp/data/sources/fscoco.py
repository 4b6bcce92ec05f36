"""FS-COCO (Chowdhury et al. 2022): freehand scene sketches of COCO photos by 100 people, each with a description.

root/images/USER/ID.jpg   root/raster_sketches/USER/ID.jpg   root/vector_sketches/USER/ID.npy   root/text/USER/ID.txt
root/val_normal.txt, root/val_unseen_user.txt: ids of the official test splits
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.audit.findings import ERROR, NOTE, WARNING, Finding
from ragaf_exp.data.decode import check_header
from ragaf_exp.data.fit import fit_drawing, fit_photo
from ragaf_exp.data.images import read_image
from ragaf_exp.data.lengths import shortened
from ragaf_exp.data.listing import by_stem, folders_in
from ragaf_exp.data.sources.coco_captions import coco_id, part_ids
from ragaf_exp.data.sources.names import normal
from ragaf_exp.data.sources.records import Record, RecordSource, root_folder
from ragaf_exp.data.sources.strokes import WIDTH, draw_strokes

LAYOUT = "the folder that holds images/, raster_sketches/, vector_sketches/ and text/"
SPLITS = {"normal": "val_normal.txt", "unseen_user": "val_unseen_user.txt"}
CANVAS = 512  # px, longer side at which vector sketches are drawn before they are fitted


class FsCoco(RecordSource):
    """Photos with freehand sketches and the sketchers' own descriptions.

    Sketches show far less than the photos, and are not pixel-aligned with them.

    Args:
        root: The folder of images/, raster_sketches/, vector_sketches/ and text/.
        size: Side of the square images, in pixels; of the buckets' square with `buckets`.
        vector: Draw the vector sketches instead of reading the JPEG rasters, whose strokes have artefacts.
        split: The official test split: "normal" (photos) or "unseen_user" (people; val then holds out people too).
        coco: COCO's folder, for the audit's check of ids; "" for none.
        fit: "crop" takes the central square, "pad" the whole image.
        on_error: "raise" or "skip" for photos without a sketch or a description.
        check: Decode every file at the start.
        val_share: Share of the other photos, or people, for val, in [0, 1).
        test_share: Share for test, in [0, 1), where the official list is missing.
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
        vector: bool = False,
        split: str = "normal",
        coco: str = "",
        fit: str = "crop",
        on_error: str = "raise",
        check: bool = False,
        val_share: limits.ShareBelowOne = 0.1,
        test_share: limits.ShareBelowOne = 0.1,
        buckets: bool = False,
        upscale: bool = False,
        crop_input: bool = False,
    ) -> None:
        folder = root_folder(root, LAYOUT)
        if split not in SPLITS:
            raise UserError(f"data.split={split}: must be {' or '.join(SPLITS)}")
        if not (folder / "images").is_dir():
            raise UserError(f"data.root={root}: no folder images; data.root must be {LAYOUT}")
        self.coco = coco
        test = _ids(folder / SPLITS[split])
        by_user = split == "unseen_user"
        records = [r for user in folders_in(folder / "images") for r in _listed(folder, user, vector, by_user, test)]
        if by_user:
            held = {record.group for record in records if record.split == "test"}
            records = [r for r in records if r.group not in held or r.split == "test"]
        super().__init__(folder, records, size, fit, "dark", (), on_error, check, val_share, test_share,
                         buckets, upscale, crop_input)  # fmt: skip

    def read(self, record: Record) -> tuple[np.ndarray, np.ndarray | None]:
        """Read photo (H, W, 3) uint8 and sketch (H, W) float32 of a record. Raises UserError."""
        if not record.drawing.endswith(".npy"):
            return super().read(record)
        image = read_image(self.root / record.image, side=self.side_of(record))
        drawing, size = draw_npy(self.root / record.drawing, *self._canvas(record)), self.size_of(record)
        return fit_photo(image, size, self.fit), fit_drawing(drawing, size, self.fit)

    def remarks(self) -> list[Finding]:
        """Report ids that occur twice, or in COCO, for an audit."""
        counts = Counter(record.key.rpartition("/")[2] for record in self.usable)
        twice = sorted(stem for stem, count in counts.items() if count > 1)
        splits = {stem: {r.split for r in self.usable if r.key.rpartition("/")[2] == stem} for stem in twice}
        across = [stem for stem in twice if len(splits[stem]) > 1]
        findings = []
        if across:
            text = "Photos that people of the training and of the test split drew: set data.split=normal, or remove them."
            findings.append(Finding(ERROR, "photos in both splits", len(across), text, across[:8]))
        ids = {coco_id(stem) for stem in counts}
        for part, level in (("train2017", WARNING), ("val2017", NOTE)):
            if self.coco and (shared := sorted(ids & part_ids(self.coco, part))):
                text = f"Photos of COCO's {part}: don't evaluate here what was trained there, nor the reverse."
                findings.append(Finding(level, f"photos in COCO {part}", len(shared), text, [str(i) for i in shared[:8]]))
        return findings

    def _canvas(self, record: Record) -> tuple[int, int]:
        """Return height and width of the canvas of a vector sketch: those of its raster, or else of its photo."""
        stem = record.key.rpartition("/")
        raster = self.root / "raster_sketches" / stem[0] / f"{stem[2]}.jpg"
        width, height = check_header(raster if raster.is_file() else self.root / record.image)
        return height, width


def draw_npy(path: Path, height: int, width: int) -> np.ndarray:
    """Draw a vector sketch: rows of x, y and a flag that ends a stroke.

    Args:
        path: The file.
        height: Of its canvas, in its units.
        width: Likewise. A sketch that reaches beyond it is scaled to fit.

    Returns:
        (H, W) float32 in [0, 1], 1 = stroke, with the canvas's aspect.

    Raises:
        UserError: The file is damaged, or of another format.
    """
    try:
        table = np.load(path, allow_pickle=False)
        points, ends = np.asarray(table[:, :2], np.float64), np.asarray(table[:, 2]) > 0
        if not len(points) or not np.isfinite(points).all():
            raise ValueError("no points")
    except (OSError, ValueError, IndexError, TypeError, EOFError):
        raise UserError(f"{path}: is no vector sketch (rows of x, y, end of stroke); fetch it again") from None
    reach = max(points[:, 0].max() / width, points[:, 1].max() / height, 1.0)
    scale = CANVAS / (max(height, width) * reach)
    strokes = [part for part in np.split(points, np.flatnonzero(ends) + 1) if len(part)]
    drawing = draw_strokes(strokes, CANVAS, scale, (0.0, 0.0), WIDTH / 2)
    rows, columns = (max(1, round(side * CANVAS / max(height, width))) for side in (height, width))
    return drawing[:rows, :columns]


def _listed(root: Path, user: str, vector: bool, by_user: bool, test: frozenset[str]) -> list[Record]:
    folder, suffixes = ("vector_sketches", (".npy",)) if vector else ("raster_sketches", (".jpg", ".jpeg", ".png"))
    images, drawings = by_stem(root / "images" / user), by_stem(root / folder / user, suffixes)
    records = []
    for stem, name in images.items():
        drawing = f"{folder}/{user}/{drawings[stem]}" if stem in drawings else ""
        path = root / "text" / user / f"{stem}.txt"
        texts = tuple(shortened([" ".join(path.read_text("utf-8", "replace").split())], path)) if path.is_file() else ()
        problem = "" if drawing and texts else "it has no sketch" if texts else f"{path}: no such file"
        group = f"user {normal(user)}" if by_user else stem
        split = "test" if stem in test else ""
        image, key = f"images/{user}/{name}", f"{normal(user)}/{stem}"
        records.append(Record(key, image, drawing, texts, group, split, problem=problem))
    return records


def _ids(path: Path) -> frozenset[str]:
    """Read the ids of an official list; none if the list is not there."""
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    return frozenset(line.strip().rpartition("/")[2].partition(".")[0] for line in text.split())
