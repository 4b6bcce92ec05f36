"""Images of a few pixels are refused in one line."""

from __future__ import annotations

import numpy as np
from PIL import Image

from eval.__main__ import main


def test_images_of_2x2_pixels_are_refused(tmp_path, refused, monkeypatch):
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (2, 2, 3), dtype=np.uint8)).save(tmp_path / folder / f"{i}.png")
    words = [f"images={tmp_path}/a", f"reference={tmp_path}/b", f"out={tmp_path}/f.json", "eval.metrics=[]"]
    monkeypatch.setenv("TQDM_DISABLE", "1")
    refused(main, *words, says=("(2, 2, 3)", "SSIM", "larger"))
