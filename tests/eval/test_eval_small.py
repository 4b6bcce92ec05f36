"""Images of a few pixels are refused in one line."""

from __future__ import annotations

import numpy as np
from PIL import Image

from eval.__main__ import main


def test_images_of_2x2_pixels_are_refused(tmp_path, cli):
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (2, 2, 3), dtype=np.uint8)).save(tmp_path / folder / f"{i}.png")
    words = [f"images={tmp_path}/a", f"reference={tmp_path}/b", f"out={tmp_path}/f.json", "eval.metrics=[]"]
    status, _, err = cli(main, *words)
    last = err.splitlines()[-1]  # below the progress bars
    assert status == 2 and last.startswith("error: images: image (2, 2, 3) is smaller than SSIM's"), err
    assert "Traceback" not in err and not (tmp_path / "f.json").exists()
