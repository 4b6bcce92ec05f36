"""One registry: a new extractor is one file and one YAML."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ragaf_exp.config.compose import CONF

NEW = """
class Threshold:
    def __init__(self, level: float = 0.5):
        self.level = level

    def __call__(self, image, drawing):
        return (image.mean(-1) < 255 * self.level).astype("float32")
"""


@pytest.mark.long
def test_a_new_extractor_is_one_file_and_one_yaml(tmp_path):
    """In a copy of the checkout, the commands accept it through the config; no other file is changed."""
    root = CONF.parent
    for folder in ("conf", "ragaf_exp", "eval"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "ragaf_exp" / "sketch" / "threshold.py").write_text(NEW)
    (tmp_path / "conf" / "sketch" / "threshold.yaml").write_text(
        "_target_: ragaf_exp.sketch.threshold.Threshold\nlevel: 0.4\n"
    )
    image = np.full((32, 32, 3), 140, np.uint8)
    image[8:24, 8:24] = 90  # on both sides of 0.4
    Image.fromarray(image).save(tmp_path / "square.png")
    module = "ragaf_exp.commands.extractor_sheet"
    options = ["out=sheet.png", "images=[square.png]", "extractors=[threshold]", "size=32"]
    command = [sys.executable, "-m", module, *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "1 extractors (threshold)" in done.stdout, done.stderr
    bottom = np.asarray(Image.open(tmp_path / "sheet.png"))[-38:-6]  # the row of pictures, 6 px from the edge
    assert (bottom[15, 44 + 15] == 0).all() and (bottom[2, 44 + 2] == 255).all()
    command[-3:] = ["images=[square.png]", "extractors=[threshold]", "threshold.level=2x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "sketch.level" in done.stderr
