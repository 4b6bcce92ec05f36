"""TU-Berlin sketches (Eitz et al. 2012): 80 drawings of each of 250 categories, as PNG or SVG.

root/CATEGORY/1234.png   or   root/CATEGORY/1234.svg
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.decode import SUFFIXES
from ragaf_exp.data.fit import fit_drawing, resize_strokes
from ragaf_exp.data.images import read_drawing
from ragaf_exp.data.listing import by_stem, folders_in
from ragaf_exp.data.sources.captions import counted
from ragaf_exp.data.sources.names import normal
from ragaf_exp.data.sources.records import Record, RecordSource, root_folder
from ragaf_exp.data.sources.svg import ink_of, read_svg

LAYOUT = "the folder of TU-Berlin's category folders (png or svg in its archives)"
RENDERED = 512  # px, smallest size at which an SVG is rendered: shrinking then preserves thin strokes
SPOKEN = {
    "tv": "TV", "suv": "SUV", "t-shirt": "T-shirt", "mouse (animal)": "mouse", "flower with stem": "flower with a stem",
    "person sitting": "sitting person", "person walking": "walking person", "crane (machine)": "crane",
}  # fmt: skip


class TuBerlin(RecordSource):
    """Drawings with captions; the image is the drawing in black on white.

    Args:
        root: The folder of category folders.
        size: Side of the square images, in pixels.
        categories: Categories to use, by their folders' names; empty for all.
        caption: Caption of a drawing, with {} for the category and its article.
        on_error: "raise" or "skip" for damaged files.
        check: Decode every file at the start.
        val_share: Share of the drawings for val, in [0, 1).
        test_share: Share of the drawings for test, in [0, 1).

    Raises:
        UserError: A value is invalid, or the layout is another.
    """

    def __init__(
        self,
        root: str = "",
        size: limits.Size = 256,
        categories: list[str] | None = None,
        caption: str = "a drawing of {}",
        on_error: str = "raise",
        check: bool = False,
        val_share: limits.ShareBelowOne = 0.1,
        test_share: limits.ShareBelowOne = 0.1,
    ) -> None:
        folder = root_folder(root, LAYOUT)
        names = folders_in(folder)
        for name in categories or ():
            if name not in names:
                raise UserError(f"data.categories: no folder {name} in {folder}; known are {', '.join(names[:8])} ...")
        records = [r for name in categories or names for r in _listed(folder, name, caption)]
        if not records:
            raise UserError(f"data.root={root}: no drawings in its folders; data.root must be {LAYOUT}")
        super().__init__(folder, records, size, "pad", "dark", (), on_error, check, val_share, test_share)

    def read(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Read a record: image (size, size, 3) uint8 and drawing (size, size) float32. Raises UserError."""
        path = self.root / record.drawing
        if path.suffix.lower() == ".svg":
            drawing = resize_strokes(ink_of(read_svg(path, max(self.size, RENDERED))), self.size, self.size)
        else:
            drawing = fit_drawing(read_drawing(path, "dark"), self.size, "pad")
        return np.repeat(np.rint(255 * (1 - drawing)).astype(np.uint8)[..., None], 3, 2), drawing


def _listed(root: Path, name: str, caption: str) -> list[Record]:
    words = normal(name).replace("_", " ")
    text = caption.replace("{}", counted(SPOKEN.get(words.lower(), words)))
    files = by_stem(root / name, (*SUFFIXES, ".svg"))
    return [Record(f"{normal(name)}/{stem}", "", f"{name}/{file}", (text,)) for stem, file in files.items()]
