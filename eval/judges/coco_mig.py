"""COCO-MIG (Zhou et al. 2024, arXiv 2402.05408): layouts and pictures for eval_mig.py, and the figures that it prints.

The layouts are sample_prompt_color_split.json: number -> caption, and of each object its box and "colour noun"; the number
is the last part of a picture's name. Its levels are scenes of 2 to 6 objects.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.judges.files import LONGEST_NAME, not_theirs, read_text, save
from eval.judges.scenes import Figure, Scene, Written, sorted_out

COLOURS = frozenset("red blue green yellow black white brown".split())  # whose range of hues the judge knows
LEVELS = range(2, 7)  # objects of a scene
LAYOUTS = "sample_prompt_color_split.json"
SINGLE = {  # key of its JSON -> title, and what it prints in front of the value
    "inst_sucess_ratio": ("instance success", "INST SUCESS RATIO"), "miou": ("mean IoU", "MIOU SCORE"),
    "sucess_ratio": ("image success", "SUCESS RATIO"),
}  # fmt: skip
BY_LEVEL = {
    "inst_level_sucess_ratio": ("instance success", "INST Level SUCESS RATIO"),
    "miou_level": ("mean IoU", "MIOU LEVEL SCORE"), "success_level_ratio": ("image success", "SUCESS LEVEL RATIO"),
}  # fmt: skip


def write(scenes: Sequence[Scene], out: Path) -> Written:
    """Write layouts and pictures.

    Args:
        scenes: The scenes.
        out: The folder; images/ in it is the judge's --image_dir.

    Returns:
        What was written; among what is left out, the levels without a scene, at which the judge divides by zero.
    """
    written, left = sorted_out(scenes, {
        "has fewer than 2 or more than 6 objects": {s.key for s in scenes if len(s.things) not in LEVELS},
        "has a colour that the judge lacks": {s.key for s in scenes if {t.colour for t in s.things} - COLOURS},
    })  # fmt: skip
    layouts = {}
    for number, scene in enumerate(written):
        labels = [f"{thing.colour} {thing.noun}" for thing in scene.things]
        segments = [{"bbox": list(t.box), "label": label} for t, label in zip(scene.things, labels, strict=True)]
        layouts[str(number)] = {"caption": scene.caption, "segment": segments, "image_id": scene.key}
        save(scene.image, out / "images" / name_of(labels, number))
    (out / LAYOUTS).write_text(json.dumps(layouts))
    levels = Counter(len(scene.things) for scene in written)
    left |= {f"no scene of {level} objects, at which the judge divides by zero": 0 for level in LEVELS if not levels[level]}
    return Written([scene.key for scene in written], left, sum(len(scene.things) for scene in written))


def name_of(labels: list[str], number: int) -> str:
    """The name of a picture: its objects in order, as far as they fit, and its number."""
    text = "_".join(labels).replace("/", " ").encode()[:LONGEST_NAME].decode(errors="ignore")
    return f"{text}_{number}.png"


def read(path: Path, scenes: int) -> list[Figure]:
    """Read the judge's metric_NAME.json, or its output as a text file.

    Args:
        path: The file.
        scenes: The number of scenes that were written, which the judge does not state.

    Returns:
        Instance success, mean IoU and image success, of all scenes and by level.

    Raises:
        UserError: The file is of another kind.
    """
    values = _values(path, read_text(path))
    figures = [Figure(title, values[key], scenes) for key, (title, _) in SINGLE.items() if key in values]
    if not figures:
        raise not_theirs(path, "holds none of the figures that eval_mig.py prints")
    for key, (title, _) in BY_LEVEL.items():
        for level, value in zip(LEVELS, values.get(key, ()), strict=False):
            figures.append(Figure(f"{title}, {level} objects", value, None))
    return figures


def _values(path: Path, text: str) -> dict[str, Any]:
    """The figures by key, from JSON or from lines as `MIOU SCORE: 0.5`."""
    try:
        content = json.loads(text)
    except ValueError:
        content = _printed(text)
    if not isinstance(content, dict):
        raise not_theirs(path, "is no object of figures")
    values = {key: content[key] for key in (*SINGLE, *BY_LEVEL) if key in content}
    for key, value in values.items():
        numbers = value if key in BY_LEVEL else [value]
        if not isinstance(numbers, list) or not all(_is_share(number) for number in numbers):
            raise not_theirs(path, f"{key} is no number from 0 to 1")
    return values


def _printed(text: str) -> dict[str, Any]:
    lines = dict(match.groups() for match in re.finditer(r"(?m)^\s*([A-Za-z ]+?)\s*:\s*([\[\d].*?)\s*$", text))
    read_values = {}
    for key, (_, label) in {**SINGLE, **BY_LEVEL}.items():
        if label in lines:
            try:
                read_values[key] = ast.literal_eval(lines[label])
            except (ValueError, SyntaxError):  # reported as a figure that is missing
                continue
    return read_values


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1
