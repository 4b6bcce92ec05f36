"""Access to OpenMoji's files: the catalogue, an emoji's colour picture and line art, and recolouring.

OpenMoji (openmoji.org) is CC BY-SA 4.0: pictures that show it must carry its attribution.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.images import read_rgba
from ragaf_exp.data.listing import visible
from ragaf_exp.data.sources.palette import OBJECT_LAB, OBJECT_NAMES, delta_e, from_lab, to_lab

GROUPS = ("animals-nature", "food-drink", "travel-places", "objects", "activities")
ODD_SUBGROUPS = ("time", "place-map")  # clock faces and globes, indistinguishable but for a name that can't be drawn
SKIN_TONES = {f"1F3F{digit}" for digit in "BCDEF"}
COLOUR_WORDS = {*OBJECT_NAMES, "black", "white", "brown", "grey", "gray"}
LAYOUT = "expected are black/HEX.png, color/HEX.png and openmoji.json in it"
LINE = 0.25  # ink beyond which a pixel belongs to a line
CHROMATIC = 15.0  # Lab chroma from which a pixel has a hue
MARGIN = 6.0  # dE76 by which a recoloured emoji is nearer to its colour's name than to any other


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


def read_catalogue(root: str, groups: Sequence[str] | None = None) -> list[Emoji]:
    """List the emoji of the groups (by default GROUPS) that have both files, without skin tones. Raises UserError."""
    entries = _read_entries(root)
    known = sorted({group for _, _, group, _ in entries})
    for group in groups or ():
        if group not in known:
            raise UserError(f"data.groups: {group} is not in {root}/openmoji.json; known: {', '.join(known)}")
    wanted = set(GROUPS if groups is None else groups)
    odd = ODD_SUBGROUPS if groups is None else ()
    files = [{p.stem for p in visible((Path(root) / folder).glob("*.png"))} for folder in ("black", "color")]
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
    """Read hexcode, annotation, group and subgroup of each emoji in openmoji.json. Raises UserError."""
    if not root:
        raise UserError(f"data.root: no folder is given; set data.root=DIR, the OpenMoji folder ({LAYOUT})")
    path = Path(root) / "openmoji.json"
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        keys = ("hexcode", "annotation", "group")
        return [(*(str(record[key]) for key in keys), str(record.get("subgroups", ""))) for record in records]
    except OSError:
        raise UserError(f"data.root={root}: no openmoji.json can be read there; {LAYOUT}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: is not OpenMoji's list (hexcode, annotation, group); fetch it again") from None


def art_files(root: str, code: str) -> tuple[Path, Path]:
    """Return the paths of an emoji's colour picture and line art."""
    return Path(root) / "color" / f"{code}.png", Path(root) / "black" / f"{code}.png"


def read_art(root: str, code: str) -> Art:
    """Decode one emoji. Raises UserError for a bad file, or for two that are not aligned."""
    colour, black = art_files(root, code)
    rgb, cover = read_rgba(colour)
    _, ink = read_rgba(black)
    if cover.shape != ink.shape:
        raise UserError(f"{root}/black/{code}.png: differs in size from the one in color/; fetch them again")
    # line art fills some areas that the colour picture doesn't: lines are dark in both
    dark = ((rgb.max(-1) < 80) & (ink > 0.5)).astype(np.uint8)
    return Art(rgb, cover, ink, ink * cv2.dilate(dark, np.ones((3, 3), np.uint8)))


def filled_share(art: Art) -> float:
    """Measure the share of the emoji's box that can show a colour: interior, at least a pixel from any line."""
    core = cv2.erode(art.cropped().interior.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)
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
