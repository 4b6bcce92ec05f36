"""Pictures and marked captions of the sampled scenes, in the form that the page needs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from ragaf_exp.config.stages import IMAGES, title_of
from ragaf_exp.core.safe_files import is_regular, open_regular, read_bounded
from ragaf_exp.data.images import read_image
from ragaf_exp.report.run.parse import Scene, damaged
from ragaf_exp.report.run.read import RunData

TITLES = {image: title_of(image) for image in IMAGES}  # of pictures whose name is no word
APART = ("attention", "attention_steps")  # shown in separate sections
SCENES, MAPS = 12, 4  # scenes in the grid, and attention maps
SIDE, WIDE = 384, 1600  # longest side in px of a picture in the grid, of a map or validation grid
PIXELS = 160  # pictures up to this side are enlarged without interpolation
MOVING = 2_000_000  # bytes: larger animations are left out
HEAVY = 300_000  # bytes: larger PNGs are photographs, for which JPEG is smaller


def picture(path: Path, longest: int) -> dict[str, Any]:
    """An image file as a data URI, scaled down to at most `longest` px. Raises UserError for a damaged one."""
    image = Image.fromarray(read_image(path, read_bounded(path)))
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer, kind = io.BytesIO(), "png"
    image.save(buffer, "PNG")  # optimize=True takes six times as long and saves 3 %
    if buffer.tell() > HEAVY:
        buffer, kind = io.BytesIO(), "jpeg"
        image.save(buffer, "JPEG", quality=88)
    content = base64.b64encode(buffer.getvalue()).decode()
    uri = f"data:image/{kind};base64,{content}"
    return {"uri": uri, "pixels": max(image.size) <= PIXELS, "width": image.width}


def scene_columns(run: RunData) -> dict[str, str]:
    """Names and titles of the pictures that at least one scene has."""
    names = dict.fromkeys(name for scene in run.scenes[:SCENES] for name in scene.pictures if name not in APART)
    return {name: TITLES.get(name, name.replace("_", " ").capitalize()) for name in names}


def scene_rows(run: RunData) -> list[dict[str, Any]]:
    """The first scenes with their captions and their pictures in the order of `scene_columns`, None for a missing one."""
    names = list(scene_columns(run))
    return [
        {
            "key": scene.key,
            "pictures": [picture(scene.pictures[n], SIDE) if n in scene.pictures else None for n in names],
            "caption": marked_caption(scene),
            "wrong": sum(not o["correct"] for o in scene.objects),
            "objects": len(scene.objects),
        }
        for scene in run.scenes[:SCENES]
    ]


def attention_maps(run: RunData) -> list[dict[str, Any]]:
    """The first scenes' attention maps."""
    mapped = [scene for scene in run.scenes if "attention" in scene.pictures][:MAPS]
    return [{"caption": s.caption, **picture(s.pictures["attention"], WIDE)} for s in mapped]


def attention_steps(run: RunData) -> list[dict[str, Any]]:
    """The first scenes' attention over the timesteps, with its animation if there is one."""
    shown = []
    for scene in (scene for scene in run.scenes if "attention_steps" in scene.pictures):
        path = scene.pictures["attention_steps"]
        moving = path.with_name("attention.gif")
        shown.append({"caption": scene.caption, **picture(path, WIDE), "moving": animation(moving)})
    return shown[:MAPS]


def animation(path: Path) -> str | None:
    """A GIF as a data URI, unchanged; None if it is missing or large. Raises UserError for another format."""
    if not is_regular(path):
        return None
    with open_regular(path) as file:
        content = file.read(MOVING)
    if len(content) == MOVING:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=["GIF"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError) as error:
        raise damaged(path, "not a GIF") from error
    return f"data:image/gif;base64,{base64.b64encode(content).decode()}"


def validation_grids(run: RunData) -> list[dict[str, Any]]:
    """The last validation grid of each stage."""
    return [{"stage": stage, "name": path.stem, **picture(path, WIDE)} for stage, path in run.grids.items()]


def marked_caption(scene: Scene) -> list[dict[str, Any]]:
    """The caption in pieces; a piece that is an object's phrase has the object as well.

    Each object takes the first occurrence of its phrase that no earlier object has taken. Phrases that are not in the
    caption are left out.
    """
    pieces: list[dict[str, Any]] = []
    taken: list[tuple[int, int, dict[str, Any]]] = []
    for thing in scene.objects:
        start = _free(scene.caption, thing["phrase"], taken)
        if start >= 0:
            taken.append((start, start + len(thing["phrase"]), thing))
    end = 0
    for start, stop, thing in sorted(taken, key=lambda t: t[0]):
        pieces.append({"text": scene.caption[end:start]})
        pieces.append({"text": scene.caption[start:stop], "object": thing})
        end = stop
    pieces.append({"text": scene.caption[end:]})
    return [piece for piece in pieces if piece["text"]]


def _free(caption: str, phrase: str, taken: list[tuple[int, int, dict[str, Any]]]) -> int:
    """Start of the phrase's first occurrence in the caption that overlaps no taken part; -1 if there is none."""
    start = caption.find(phrase) if phrase else -1
    while start >= 0 and any(a < start + len(phrase) and start < b for a, b, _ in taken):
        start = caption.find(phrase, start + 1)
    return start
