"""Two processes on images of several sizes: both take the same size at each step, and continue to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import data_layouts
import numpy as np
import pytest
from PIL import Image
from test_ranks import LAUNCH

pytestmark = pytest.mark.process

CONTINUED = (
    LAUNCH
    + """
print(launch(argv), flush=True)
folder = next(os.path.join(base, "refine") for base, names, _ in os.walk(place) if "refine" in names)
shutil.move(os.path.join(folder, max(os.listdir(folder))), place + "/undisturbed")
os.remove(os.path.dirname(os.path.dirname(folder)) + "/status.json")
print(launch(argv), flush=True)
"""
)


def write_images(folder: Path) -> list[str]:
    """Discs on images of three aspects, in the folders of a train, a validation and a test split: overrides."""
    for split in ("train", "validation", "test"):
        (folder / split).mkdir(parents=True)
        rows = []
        for i, (height, width) in enumerate([(60, 40), (40, 60), (48, 48)] * (3 if split == "train" else 1)):
            picture = np.full((height, width, 3), 220 - 5 * i, np.uint8)
            cv2.circle(picture, (width // 2, height // 2), 13, (200, 20, 10 * i), -1)
            Image.fromarray(picture).save(folder / split / f"{i}.png")
            rows.append({"file_name": f"{i}.png", "text": "a red disc"})
        (folder / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ["data=folder", f"data.root={folder}"]


def write_coco(folder: Path) -> list[str]:
    """COCO's layout with pictures of three aspects: overrides."""
    with data_layouts.sizes((56, 40), (40, 56), (48, 48)):
        return ["data=coco", *data_layouts.coco(folder)]


@pytest.mark.parametrize("write", [write_images, write_coco])
def test_two_processes_train_on_buckets_and_continue_to_the_bit(tiny, tmp_path, write):
    changed = {"data.buckets": "true", "sketch": "canny",
               "runs": tmp_path, "stage.coarse.steps": 3, "stage.refine.steps": 4, "stage.refine.region_steps": 2,
               "stage.log_every": 1, "stage.checkpoint_every": 2, "stage.validate_every": 6,
               "eval.test_items": 2, "eval.pictures": 0}  # fmt: skip
    dropped = {*changed, "data.train", "data.val", "data.test"}
    words = [word for word in tiny if word.partition("=")[0] not in dropped] + [f"{k}={v}" for k, v in changed.items()]
    words += write(tmp_path / "data")
    done = subprocess.run([sys.executable, "-c", CONTINUED, str(tmp_path), *words], capture_output=True, text=True,
                          timeout=280)  # fmt: skip
    errors = [(tmp_path / f"rank{rank}.txt").read_text() for rank in range(2)]
    assert done.returncode == 0, done.stderr
    statuses = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert statuses == ["[0, 0]", "[0, 0]"], errors
    assert "continuing from step 4 of 6" in errors[0]
    (again,) = tmp_path.glob("tiny/*/checkpoints/refine/00000006")
    before = tmp_path / "undisturbed"
    assert len(list(before.iterdir())) == 4
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in before.iterdir())
