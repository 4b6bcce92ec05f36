"""Images against a reference of the same names and other sizes; and checks that come before the work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval.__main__ as command
from eval.networks import Networks

COUNT = 6


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """images of 32x32 and a reference of the same names, half of it of 48x32, as COCO's are of many sizes."""
    rng = np.random.default_rng(0)
    for name in ("images", "reference", "sketches"):
        (tmp_path / name).mkdir()
        for i in range(COUNT):
            width = 48 if name == "reference" and i % 2 else 32
            picture = rng.integers(0, 256, (32, width, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{i:012d}.png")
    return tmp_path


def words(folders: Path, *more: str) -> list[str]:
    given = [f"{name}={folders / name}" for name in ("images", "reference")]
    return [*given, "eval.metrics=[fd_embedded,lpips]", f"out={folders / 'found.json'}", *more]


def test_sets_are_compared_and_pairs_are_unavailable(folders, cli):
    status, out, err = cli(command.main, *words(folders))
    assert status == 0, err
    results = json.loads((folders / "found.json").read_text())
    assert results["metrics"]["fd_embedded"]["n"] == COUNT and not {"psnr", "lpips"} & set(results["metrics"])
    assert set(results["unavailable"]) == {"mse", "psnr", "ssim", "lpips"}
    reason = results["unavailable"]["ssim"]
    assert "000000000001: 32x32 in" in reason and "48x32 in" in reason and "2 more pairs of 6" in reason
    assert "resize one of the sets" in reason and "ssim: unavailable" in out


def test_one_size_is_compared_in_pairs(folders, cli):
    for i in range(1, COUNT, 2):
        (folders / "reference" / f"{i:012d}.png").unlink()
    assert cli(command.main, *words(folders, "eval.metrics=[]"))[0] == 0
    results = json.loads((folders / "found.json").read_text())
    assert results["metrics"]["psnr"]["n"] == COUNT // 2 and not results["unavailable"]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("captions={}/other.jsonl", "captions=: nothing there"),
        ("captions={}/edits.jsonl", "edits=: nothing there"),
        ("sketches={}/none", "sketches="),
        ("eval.lpips_backbone={}/none.pth", "eval.lpips_backbone"),
    ],
)
def test_what_needs_no_features_is_refused_before_them(word, says, folders, cli, monkeypatch):
    (folders / "other.jsonl").write_text('{"file_name": "a.png", "text": "a cat"}\n')
    row = {"file_name": f"{0:012d}.png", "text": "a cat", "text_before": "a dog"}
    (folders / "edits.jsonl").write_text(json.dumps(row) + "\n")
    (folders / "reference" / f"{0:012d}.png").rename(folders / "reference" / "other.png")
    monkeypatch.setattr(Networks, "measure", lambda *args: pytest.fail("features were computed"))
    status, _, err = cli(command.main, *words(folders), word.format(folders))
    assert status == 2 and says in err.splitlines()[-1] and err.splitlines()[-1].startswith("error: ")
