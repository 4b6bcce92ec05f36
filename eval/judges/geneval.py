"""GenEval (Ghosh et al. 2023, arXiv 2310.11513): folders of evaluation/evaluate_images.py, and its results.jsonl.

Each prompt has a folder 00000/ with metadata.jsonl, which names what must be there, and samples/0000.png. The judge takes
the most confident detection of each class, so a class can occur once in a scene.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.judges.files import not_theirs, read_lines, save
from eval.judges.scenes import Figure, Scene, Written, sorted_out
from eval.statistics.bootstrap import mean_interval

COLOURS = frozenset("red orange yellow green blue purple pink brown black white".split())  # that its classifier knows
TAGS = {1: "colors", 2: "color_attr"}  # by the number of objects; GenEval has none for more


def write(scenes: Sequence[Scene], out: Path) -> Written:
    """Write a folder for each scene, and the two lists of prompts that GenEval's generators read.

    Args:
        scenes: The scenes.
        out: The folder.

    Returns:
        What was written.
    """
    written, left = sorted_out(scenes, {
        "has no object": {scene.key for scene in scenes if not scene.things},
        "has two objects of one class": {s.key for s in scenes if len({t.noun for t in s.things}) < len(s.things)},
        "has a colour that the judge lacks": {s.key for s in scenes if {t.colour for t in s.things} - COLOURS},
    })  # fmt: skip
    for number, scene in enumerate(written):
        folder = out / f"{number:05d}"
        save(scene.image, folder / "samples" / "0000.png")
        (folder / "metadata.jsonl").write_text(json.dumps(metadata(scene)))
    (out / "evaluation_metadata.jsonl").write_text("".join(json.dumps(metadata(scene)) + "\n" for scene in written))
    (out / "generation_prompts.txt").write_text("".join(f"{scene.caption}\n" for scene in written))
    classes = sorted({thing.noun for scene in written for thing in scene.things})
    (out / "object_names.txt").write_text("".join(f"{name}\n" for name in classes))
    return Written([scene.key for scene in written], left, sum(len(scene.things) for scene in written))


def metadata(scene: Scene) -> dict[str, Any]:
    """List the objects that the judge must find in a scene."""
    include = [{"class": thing.noun, "count": 1, "color": thing.colour} for thing in scene.things]
    tag = TAGS.get(len(scene.things), f"{len(scene.things)}_objects")
    return {"tag": tag, "include": include, "prompt": scene.caption}


def read(path: Path, scenes: int) -> list[Figure]:
    """Read results.jsonl.

    Args:
        path: The file.
        scenes: The number of scenes that were written.

    Returns:
        The share of correct images, of all and by tag, and GenEval's score, the mean over tags.

    Raises:
        UserError: The file is of another kind, or of another number of scenes.
    """
    rows = read_lines(path)
    if not all(isinstance(row, dict) and {"tag", "correct", "filename"} <= row.keys() for row in rows):
        raise not_theirs(path, "its lines lack filename, tag or correct")
    if len(rows) != scenes:
        raise not_theirs(path, f"holds {len(rows)} images, and {scenes} were exported")
    by_tag: dict[str, list[float]] = {}
    for row in rows:
        by_tag.setdefault(str(row["tag"]), []).append(float(bool(row["correct"])))
    correct = [value for values in by_tag.values() for value in values]
    figures = [_share("correct images", correct), *(_share(f"correct, {tag}", v) for tag, v in sorted(by_tag.items()))]
    overall = sum(sum(values) / len(values) for values in by_tag.values()) / len(by_tag)
    return [Figure("score, the mean over tags", overall, len(rows)), *figures]


def _share(title: str, values: list[float]) -> Figure:
    mean, low, high = mean_interval(values)
    return Figure(title, mean, len(values), (low, high))
