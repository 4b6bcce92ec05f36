"""Access to OpenMoji's files: the catalogue, an emoji's colour picture and line art, and recolouring.

OpenMoji (openmoji.org) is CC BY-SA 4.0: pictures that show it must carry its attribution.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.images import read_rgba
from ragaf_exp.data.lengths import shortened
from ragaf_exp.data.listing import by_stem
from ragaf_exp.data.sources.palette import OBJECT_LAB, OBJECT_NAMES, delta_e, from_lab, to_lab
from ragaf_exp.data.sources.svg import read_svg

GROUPS = ("animals-nature", "food-drink", "travel-places", "objects", "activities")
ODD_SUBGROUPS = ("time", "place-map")  # clock faces and globes, indistinguishable but for a name that can't be drawn
SKIN_TONES = {f"1F3F{digit}" for digit in "BCDEF"}
COLOUR_WORDS = {*OBJECT_NAMES, "black", "white", "brown", "grey", "gray"}
LAYOUT = "expected are black/HEX.png, color/HEX.png and openmoji.json in it, or those of the npm package"
CATALOGUES = ("openmoji.json", "data/openmoji.json")  # the second is that of the npm package
BASE = 72  # px, at which OpenMoji is drawn
LINE = 0.25  # ink beyond which a pixel belongs to a line
CHROMATIC = 15.0  # Lab chroma from which a pixel has a hue
MARGIN = 6.0  # dE76 by which a recoloured emoji is nearer to its colour's name than to any other


class Form(NamedTuple):
    """One form of OpenMoji's files, in black/ and color/."""

    folder: str  # below these folders
    suffix: str


FORMS = {"flat": Form("", ".png"), "72": Form("72x72", ".png"), "618": Form("618x618", ".png"), "svg": Form("svg", ".svg")}


@dataclass(frozen=True)
class Emoji:
    """An entry of the catalogue."""

    code: str  # hexcode: the files' name
    name: str  # annotation


@dataclass(frozen=True)
class Art:
    """One emoji's pictures, pixel-aligned."""

    rgb: np.ndarray  # (H,W,3) uint8
    cover: np.ndarray  # (H,W) float32 in [0,1], alpha of the colour picture
    ink: np.ndarray  # (H,W) float32 in [0,1], 1 = stroke: alpha of the line art
    line: np.ndarray  # (H,W) float32 in [0,1], how much of a colour pixel is outline

    @cached_property
    def lab(self) -> np.ndarray:
        """(H,W,3) float32: the colours in CIELAB."""
        return to_lab(self.rgb)

    @cached_property
    def interior(self) -> np.ndarray:
        """(H,W) bool: opaque and not a line."""
        return (self.cover >= 0.5) & (self.line < LINE)

    def cropped(self) -> Art:
        """Crop the empty margin."""
        content = np.argwhere((self.cover > 0.1) | (self.ink > 0.1))
        if not len(content):
            return self
        (top, left), (bottom, right) = content.min(0), content.max(0) + 1
        box = slice(top, bottom), slice(left, right)
        return Art(self.rgb[box], self.cover[box], self.ink[box], self.line[box])


def find_form(root: str, art: str, size: int) -> Form:
    """Choose the form of the files: the one named, or of those present the one that suffices for the size.

    Args:
        root: The folder of OpenMoji's files.
        art: A key of FORMS, or "auto".
        size: Side of the images, in pixels.

    Raises:
        UserError: The form is unknown, or there are no such files.
    """
    if art not in ("auto", *FORMS):
        raise UserError(f"data.art={art}: must be auto, {', '.join(FORMS)}")
    order = ("flat", "72", "618", "svg") if size <= BASE else ("618", "svg", "flat", "72")
    above = Path(root) / "color"
    there = [name for name in order if next((above / FORMS[name].folder).glob(f"*{FORMS[name].suffix}"), None)]
    if art == "auto":
        return FORMS[there[0] if there else "flat"]
    if art not in there:
        raise UserError(f"data.art={art}: no such files in {root}/color; there are {', '.join(there) or 'none'}")
    return FORMS[art]


def read_catalogue(root: str, groups: Sequence[str] | None = None, form: Form = FORMS["flat"]) -> list[Emoji]:
    """List the emoji of the groups that have both files, without skin tones.

    Args:
        root: The folder of OpenMoji's files.
        groups: OpenMoji's groups; by default GROUPS.
        form: Of the files.

    Raises:
        UserError: There are none, or the catalogue can't be read.
    """
    entries = _read_entries(root)
    known = sorted({group for _, _, group, _ in entries})
    for group in groups or ():
        if group not in known:
            raise UserError(f"data.groups: {group} is not in {root}/openmoji.json; known: {', '.join(known)}")
    wanted = set(GROUPS if groups is None else groups)
    odd = ODD_SUBGROUPS if groups is None else ()
    files = [set(by_stem(Path(root) / folder / form.folder, (form.suffix,))) for folder in ("black", "color")]
    chosen = [
        Emoji(code, name)
        for code, name, group, subgroup in entries
        if group in wanted
        and subgroup not in odd
        and not SKIN_TONES & set(code.split("-"))
        and code in files[0]
        and code in files[1]
    ]
    if not chosen:
        names = ", ".join(sorted(wanted))
        raise UserError(f"data.root={root}: no emoji of the groups {names} there; {LAYOUT}")
    return chosen


def _read_entries(root: str) -> list[tuple[str, str, str, str]]:
    """Read hexcode, annotation (cut when too long), group and subgroup of each emoji in openmoji.json. Raises UserError."""
    if not root:
        raise UserError(f"data.root: no folder is given; set data.root=DIR, the OpenMoji folder ({LAYOUT})")
    path = next((p for name in CATALOGUES if (p := Path(root) / name).is_file()), Path(root) / CATALOGUES[0])
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        names = shortened([str(record["annotation"]) for record in records], path)
        return [(str(record["hexcode"]), name, str(record["group"]), str(record.get("subgroups", "")))
                for name, record in zip(names, records, strict=True)]  # fmt: skip
    except OSError:
        raise UserError(f"data.root={root}: no openmoji.json can be read there; {LAYOUT}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: is not OpenMoji's list (hexcode, annotation, group); fetch it again") from None


def art_files(root: str, code: str, form: Form = FORMS["flat"]) -> tuple[Path, Path]:
    """Return the paths of an emoji's colour picture and line art.

    Args:
        root: The folder of OpenMoji's files.
        code: Its hexcode.
        form: Of the files.
    """
    name = f"{code}{form.suffix}"
    return Path(root) / "color" / form.folder / name, Path(root) / "black" / form.folder / name


def read_art(root: str, code: str, form: Form = FORMS["flat"], side: int = 0) -> Art:
    """Decode one emoji.

    Args:
        root: The folder of OpenMoji's files.
        code: Its hexcode.
        form: Of the files.
        side: Pixels at which SVG files are rendered, and to which larger pictures are reduced; 0 for BASE and for none.

    Raises:
        UserError: A file is bad, or the two are not aligned.
    """
    colour, black = art_files(root, code, form)
    (rgb, cover), (_, ink) = (_read(path, side) for path in (colour, black))
    if cover.shape != ink.shape:
        raise UserError(f"{black}: differs in size from the one in color/; fetch them again")
    # line art fills some areas that the colour picture doesn't: lines are dark in both
    dark = ((rgb.max(-1) < 80) & (ink > 0.5)).astype(np.uint8)
    return Art(rgb, cover, ink, ink * cv2.dilate(dark, _square(len(ink))))


def _read(path: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Read RGB (H,W,3) uint8 and alpha (H,W) in [0,1] of a picture."""
    if path.suffix == ".svg":
        rgba = read_svg(path, side or BASE)
        return rgba[..., :3], rgba[..., 3].astype(np.float32) / 255
    rgb, alpha = read_rgba(path)
    if not side or side >= len(rgb):
        return rgb, alpha
    layers = np.dstack([rgb * alpha[..., None], alpha])  # colour times alpha: no fringes
    layers = cv2.resize(layers, (side, side), interpolation=cv2.INTER_AREA)
    alpha = layers[..., 3]
    return np.rint(layers[..., :3] / np.maximum(alpha, 1e-3)[..., None]).clip(0, 255).astype(np.uint8), alpha


def _square(side: int) -> np.ndarray:
    """Return a square of ones, 3 pixels wide in a picture of BASE pixels and in proportion in larger ones."""
    return np.ones((2 * max(1, round(side / BASE)) + 1,) * 2, np.uint8)


def filled_share(art: Art) -> float:
    """Measure the share of the emoji's box that can show a colour: interior, at least a pixel from any line."""
    core = cv2.erode(art.cropped().interior.astype(np.uint8), _square(len(art.ink)), borderValue=0)
    return float(core.mean())


def noun(name: str) -> str:
    """Strip a leading colour word from an annotation: 'green book' becomes 'book'."""
    first, _, rest = name.partition(" ")
    return rest if rest and first.lower() in COLOUR_WORDS else name


def recolour(art: Art, colour: str) -> Art:
    """Recolour an emoji's interior in a palette colour, preserving shading and outlines.

    White and grey parts of a coloured emoji stay; a mostly grey one is coloured as a whole. If the interior's
    mean is then not clearly nearest to the colour's name, everything is coloured, with less and less shading.
    """
    lab, interior = art.lab, art.interior
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    hued = interior & (chroma > CHROMATIC)
    attempts = [(0.6, False), (0.6, True), (0.3, True), (0.0, True)]
    rgb = art.rgb
    for shading, whole in attempts[int(hued.sum() < 0.4 * interior.sum()) :]:
        weight = np.ones_like(chroma) if whole else np.clip((chroma - 6) / (CHROMATIC - 6), 0, 1)
        tint = _tinted(lab, chroma, interior if whole else hued, OBJECT_LAB[OBJECT_NAMES.index(colour)], shading)
        mixed = art.rgb + weight[..., None] * (tint - art.rgb)
        rgb = np.rint(mixed * (1 - art.line[..., None])).astype(np.uint8)
        if is_plainly(rgb[interior], colour):
            break
    return Art(rgb, art.cover, art.ink, art.line)


def _tinted(lab: np.ndarray, chroma: np.ndarray, part: np.ndarray, target: np.ndarray, shading: float) -> np.ndarray:
    """Tint a picture with a Lab colour and a share of its shading, as RGB (H,W,3) float32 in [0,255]."""
    lightness = np.clip(lab[..., 0] - lab[..., 0][part].mean(), -40, 35) * shading
    usual = float(chroma[part].mean())
    ratio = np.clip(chroma / usual, 0.6, 1.2) if usual > CHROMATIC else np.ones_like(chroma)
    strength = 1 + (ratio - 1) * shading
    return from_lab(np.stack([target[0] + lightness, target[1] * strength, target[2] * strength], -1))


def is_plainly(pixels: np.ndarray, colour: str) -> bool:
    """Whether the mean of RGB pixels (K, 3) is nearest to this palette colour, by MARGIN."""
    away = delta_e(to_lab(pixels.mean(0) / 255), OBJECT_LAB)
    own = OBJECT_NAMES.index(colour)
    return bool(away[own] + MARGIN <= np.delete(away, own).min())
