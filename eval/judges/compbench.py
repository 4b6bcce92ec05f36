"""T2I-CompBench (Huang et al. 2023, arXiv 2307.06350): samples/PROMPT_000000.png, and vqa_result.json of its judges.

The judge reads the prompt from the file's name, up to the first underscore, and sorts files by the number after the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.judges.files import LONGEST_NAME, not_theirs, read_json, save
from eval.judges.scenes import Figure, Scene, Written, sorted_out
from eval.statistics.bootstrap import mean_interval

FORBIDDEN = frozenset("_/\0")  # in a prompt that becomes a file's name


def write(scenes: Sequence[Scene], out: Path) -> Written:
    """Write the pictures, and the prompts one per line as in its data set.

    Args:
        scenes: The scenes.
        out: The folder, which is the judge's --out_dir.

    Returns:
        What was written.
    """
    written, left = sorted_out(scenes, {
        "has a caption that is no file name": {s.key for s in scenes if not s.caption or FORBIDDEN & set(s.caption)},
        "has too long a caption": {s.key for s in scenes if len(name_of(s, 0).encode()) > LONGEST_NAME},
    })  # fmt: skip
    for number, scene in enumerate(written):
        save(scene.image, out / "samples" / name_of(scene, number))
    (out / "color_val.txt").write_text("".join(f"{scene.caption}\n" for scene in written))
    return Written([scene.key for scene in written], left, sum(len(scene.things) for scene in written))


def name_of(scene: Scene, number: int) -> str:
    """The name of a scene's picture."""
    return f"{scene.caption}_{number:06d}.png"


def read(path: Path, scenes: int) -> list[Figure]:
    """Read vqa_result.json, of BLIP-VQA or another of its judges.

    Args:
        path: The file.
        scenes: The number of scenes that were written.

    Returns:
        The mean score.

    Raises:
        UserError: The file is of another kind, or of another number of scenes.
    """
    rows = read_json(path)
    try:
        values = [float(row["answer"]) for row in rows]
    except (TypeError, KeyError, ValueError) as error:
        raise not_theirs(path, "is no list of question_id and answer") from error
    if len(values) != scenes:
        raise not_theirs(path, f"holds {len(values)} images, and {scenes} were exported")
    if not all(0 <= value <= 1 for value in values):  # also false for NaN
        raise not_theirs(path, "holds an answer outside of 0 to 1")
    mean, low, high = mean_interval(values)
    return [Figure("mean score of the images", mean, len(values), (low, high))]
