"""Writes a contact sheet of every sketch extractor on the same images.

    python -m ragaf_exp.commands.extractor_sheet out=FILE.png [images='[photo.jpg,chelsea]'] [drawings='[cat.png]']
        [size=256] [extractors='[canny,pidinet]'] [EXTRACTOR.KEY=VALUE ...] [note=TEXT]

images: files, or names of scikit-image's photos. drawings: line drawings, paired with images by name. extractors: options
of conf/sketch/, by default all; one that cannot run is left out, and the reason is printed. note: a line below the
sheet. Example:

    python -m ragaf_exp.commands.extractor_sheet out=sheet.png images='[chelsea]' extractors='[canny,xdog]'
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ragaf_exp.config.build import build
from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError, between
from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.resources import CONF
from ragaf_exp.core.writable import check_file
from ragaf_exp.data.fit import fit_drawing, fit_image
from ragaf_exp.data.images import read_drawing, read_image, stroke_share, warn_of_odd
from ragaf_exp.data.listing import visible
from ragaf_exp.sketch.drawn import Drawn
from ragaf_exp.viz.grids import captioned, grid

KNOWN = {"out": str, "images": list, "drawings": list, "extractors": list, "size": int, "note": str}
PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "rocket")  # those bundled with scikit-image's package
DEFAULT = ["astronaut", "coffee", "chelsea", "camera"]


@dataclass(frozen=True)
class Picture:
    """One row of the sheet."""

    image: np.ndarray  # (S,S,3) uint8
    drawing: np.ndarray | None = None  # (S,S) float32, 1 = stroke


def main() -> None:
    overrides = [argument for argument in sys.argv[1:] if re.match(r"\w+\.\w+=", argument)]
    args = parse_args([argument for argument in sys.argv[1:] if argument not in overrides], KNOWN)
    if "out" not in args:
        raise UserError("out: missing; give out=FILE.png")
    check_file(Path(args["out"]), "out")
    size = args.get("size", 256)
    between("size", size, 16, 2048, 256)
    names = args.get("extractors", options())
    extractors = {name: build_extractor(name, overrides) for name in checked_names(names, overrides)}
    images, drawings = args.get("images", []), args.get("drawings", [])
    pictures = read_pictures(images if images or drawings else DEFAULT, drawings, size)
    columns = run(extractors, pictures)
    rows = [[p.image, *(column[i] for column in columns.values())] for i, p in enumerate(pictures)]
    sheet = captioned(grid(rows, ["image", *columns], cell=size), args.get("note", ""), size)
    save(Path(args["out"]), sheet)
    print(f"{args['out']}: {len(pictures)} pictures, {len(columns)} extractors ({', '.join(columns)})")


def options() -> list[str]:
    """All options of the config group `sketch`."""
    return [path.stem for path in visible((CONF / "sketch").glob("*.yaml"))]


def checked_names(names: list[str], overrides: list[str]) -> list[str]:
    """The names. Raises UserError if one is unknown, or an override is for an extractor that is not among them."""
    for name in names:
        if name not in options():
            raise UserError(f"extractors={name}: unknown extractor; known are {', '.join(options())}")
    for override in overrides:
        if override.partition(".")[0] not in names:
            raise UserError(f"{override}: not for an extractor on this sheet; these are {', '.join(names)}")
    return names


def build_extractor(name: str, overrides: list[str]) -> Any:
    """Build an extractor with its overrides. Raises UserError if one of them is unknown or out of range."""
    own = [f"sketch.{text.removeprefix(name + '.')}" for text in overrides if text.startswith(name + ".")]
    return build(compose_config([f"sketch={name}", *own]).sketch, "sketch")


def read_pictures(images: list[str], drawings: list[str], size: int) -> list[Picture]:
    """Read the rows of the sheet.

    Args:
        images: Image files or names in PHOTOS.
        drawings: Drawing files; one with the name of an image is paired with it.
        size: Side of the pictures, in px.

    Returns:
        The images in order, each with its drawing, then the unpaired drawings.
    """
    lines = {Path(drawing).stem: drawing for drawing in drawings}
    rows = [_picture(image, lines.pop(Path(image).stem, None), size) for image in images]
    return rows + [_picture(drawing, drawing, size) for drawing in lines.values()]


def _picture(image: str, drawing: str | None, size: int) -> Picture:
    fit = "crop" if drawing is None else "pad"
    picture = fit_image(bundled_photo(image) if image in PHOTOS else read_image(image), size, fit)
    if drawing is None:
        return Picture(picture)
    strokes = read_drawing(drawing)
    warn_of_odd({drawing: stroke_share(strokes)})
    return Picture(picture, fit_drawing(strokes, size))


def bundled_photo(name: str) -> np.ndarray:
    """A photo bundled with scikit-image, uint8 RGB (H,W,3)."""
    import skimage.data

    photo = getattr(skimage.data, name)()
    return photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, 2)


def run(extractors: dict[str, Any], pictures: list[Picture]) -> dict[str, list[np.ndarray | None]]:
    """Extract the sketches of all pictures, by extractor. One that cannot run is left out, and the reason is printed."""
    columns = {}
    bar = tqdm(extractors.items(), unit="extractor")
    for name, extractor in bar:
        bar.set_postfix_str(name)
        try:
            columns[name] = list(_sketches(extractor, pictures))
        except UserError as error:
            bar.write(f"{name}: left out: {error}", file=sys.stderr)
    return columns


def _sketches(extractor: Any, pictures: list[Picture]) -> Iterable[np.ndarray | None]:
    """Sketches; None if the extractor returns the given drawing and only other pictures have one."""
    any_drawing = any(p.drawing is not None for p in pictures)
    for p in pictures:
        skipped = isinstance(extractor, Drawn) and p.drawing is None and any_drawing
        yield None if skipped else extractor(p.image, p.drawing)


def save(path: Path, sheet: np.ndarray) -> None:
    """Write the sheet (h,w,3) uint8 as PNG."""
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())


if __name__ == "__main__":
    guarded(main)
