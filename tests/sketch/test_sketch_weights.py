"""Files of weights: damaged, foreign and hostile ones; and PiDiNet with its authors' real weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from extractor_weights import NEURAL, save_random
from safetensors.torch import save_file

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.images import read_image
from ragaf_exp.sketch import neural
from ragaf_exp.sketch.loading import library, read_state
from ragaf_exp.sketch.pidinet import KERNELS, PiDiNet

BLANK = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def teed(tmp_path_factory) -> Path:
    return save_random("teed", tmp_path_factory.mktemp("weights"))


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def refused(path: Path, name: str = "teed") -> str:
    with pytest.raises(UserError, match="sketch.weights=") as refusal:
        NEURAL[name](str(path), "cpu")(BLANK, None)
    line = str(refusal.value)
    assert "\n" not in line and str(path) in line and len(line) < 500
    return line


def test_bad_files_are_one_line(teed, tmp_path):
    pytest.importorskip("controlnet_aux")
    assert "no such file" in refused(tmp_path / "missing.pth")
    assert "is a folder" in refused(tmp_path)
    for name, content in {"empty.pth": b"", "text.pth": b"not weights", "cut.pth": teed.read_bytes()[:-2000],
                          "cut.safetensors": b"\x00" * 20}.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name)
    for name, content in {"list.pth": [1, 2], "number.pth": {"a": 1}, "none.pth": {}, "tensor.pth": torch.ones(2),
                          "inner.pth": {"state_dict": {"a": 3}}}.items():  # fmt: skip
        torch.save(content, tmp_path / name)
        assert "holds no network's weights" in refused(tmp_path / name)


@pytest.mark.parametrize("name", NEURAL)
def test_another_networks_weights_are_refused(name, teed, tmp_path):
    other = save_random("hed", tmp_path) if name == "teed" else teed
    assert NEURAL[name].FILE in refused(other, name)


def test_nothing_is_unpickled(tmp_path):
    pytest.importorskip("controlnet_aux")
    made = tmp_path / "made"
    torch.save({"state_dict": Bomb(made)}, tmp_path / "bomb.pth")
    assert "holds more than tensors" in refused(tmp_path / "bomb.pth")
    assert not made.exists()


def test_layouts_agree(teed, tmp_path):
    """Half precision, safetensors and the prefix of nn.DataParallel are all read alike."""
    state = torch.load(teed, weights_only=True)
    torch.save({"state_dict": {"state_dict": {f"module.{k}": v for k, v in state.items()}}}, tmp_path / "deep.pth")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "flat.safetensors")
    torch.save({k: v.half() for k, v in state.items()}, tmp_path / "half.pth")
    for name, atol in (("deep.pth", 0), ("flat.safetensors", 0), ("half.pth", 1e-3)):
        result = read_state(str(tmp_path / name), "5_model.pth")
        assert result.keys() == state.keys()
        for key, value in result.items():
            torch.testing.assert_close(value, state[key], atol=atol, rtol=1e-3 if atol else 0)


# --- PiDiNet's real weights


@pytest.fixture(scope="module")
def pidinet_weights(shared_data) -> Path:
    pytest.importorskip("controlnet_aux")
    for folder in (shared_data.parent / "weights" / "pidinet", shared_data / "pidinet"):
        if folder.is_dir():
            return folder
    pytest.skip(f"no PiDiNet weights next to {shared_data}")


@pytest.fixture(scope="module")
def outlined(shared_data) -> list[tuple[np.ndarray, np.ndarray]]:
    """Photos of COCO, and the outlines (H,W) bool that people drew around their objects."""
    path = shared_data / "coco_mini"
    if not path.is_dir():
        pytest.skip(f"{path} is absent")
    coco = json.loads((path / "annotations" / "instances_val2017.json").read_text())
    chosen = []
    for row in sorted(coco["images"], key=lambda r: r["id"]):
        things = [a for a in coco["annotations"] if a["image_id"] == row["id"] and not a["iscrowd"]]
        outline = np.zeros((row["height"], row["width"]), np.uint8)
        for thing in things:
            rings = [np.reshape(ring, (-1, 1, 2)).round().astype(np.int32) for ring in thing["segmentation"]]
            cv2.polylines(outline, rings, True, 1)
        if max((a["area"] for a in things), default=0) > 0.1 * outline.size:
            chosen.append((read_image(path / "val2017" / row["file_name"]), outline > 0))
    assert len(chosen) >= 8
    return chosen[:8]


def agreement(sketch: np.ndarray, outline: np.ndarray) -> float:
    """Mean strength of the edges within 2 px of an outline; the strongest of each neighbourhood counts."""
    near = cv2.dilate(sketch, np.ones((5, 5), np.uint8))
    return float(near[outline].mean())


@pytest.mark.parametrize(("file", "width"), [("", 60), ("-small", 30), ("-tiny", 20)])
def test_pidinet_finds_the_outlines_that_people_drew(file, width, pidinet_weights, outlined):
    extractor = PiDiNet(str(pidinet_weights / f"table5_pidinet{file}.pth"), resolution=256)
    assert extractor.network().init_block.weight.shape[0] == width, "which of the three it is, the shapes say"
    right, chance = [], []
    for image, outline in outlined[: 3 if not file else 8]:
        sketch = extractor(image, None)
        assert sketch.shape == image.shape[:2] and sketch.max() > 0.8
        right.append(agreement(sketch, outline))
        chance.append(np.mean([agreement(sketch, turned) for turned in (outline[::-1], outline[:, ::-1])]))
    assert np.mean(right) > 0.5 and np.mean(right) > 1.5 * np.mean(chance)
    assert np.mean(np.array(right) > chance) >= 0.75, "of the photos, not of their mean alone"


def test_pidinet_outlines_a_disc_where_it_is(pidinet_weights):
    y, x = np.mgrid[:128, :128] - 64
    disc = np.hypot(x, y) < 40
    image = np.where(disc[..., None], (200, 60, 40), (90, 130, 220)).astype(np.uint8)
    sketch = PiDiNet(str(pidinet_weights / "table5_pidinet.pth"), threshold=0.5, thin=True)(image, None)
    away = abs(np.hypot(x, y) - 40)
    assert sketch.sum() > 200 and away[sketch > 0].max() < 3, "a ring, one pixel wide, and nothing else"


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (60, 1), (5, 7), (16, 16), (33, 65)])
def test_small_pictures_go_through_real_weights(shape, pidinet_weights):
    extractor = PiDiNet(str(pidinet_weights / "table5_pidinet-tiny.pth"))
    sketch = extractor(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8), None)
    assert sketch.shape == shape and 0 <= sketch.min() <= sketch.max() <= 1


def test_a_plain_picture_has_no_frame(pidinet_weights, monkeypatch):
    """Convolutions that pad with zeros see an edge along the border; a margin that mirrors the picture keeps it out."""
    extractor = PiDiNet(str(pidinet_weights / "table5_pidinet-tiny.pth"))
    plain = np.full((48, 48, 3), (230, 60, 40), np.uint8)
    assert extractor(plain, None).max() < 0.01
    monkeypatch.setattr(neural, "MARGIN", 0)
    assert extractor(plain, None).max() > 0.2, "the case is a real one"


def test_pidinet_as_plain_convolutions(pidinet_weights, tmp_path):
    """Weights converted as the paper says, and a model without attention or dilation, load by their shapes."""
    model = library("pidi.model")
    path = pidinet_weights / "table5_pidinet-tiny.pth"
    state = read_state(str(path), "")
    places = [f"block{b}_{i}.conv1.weight" for b, n in ((1, 3), (2, 4), (3, 4), (4, 4)) for i in range(1, n + 1)]
    kernels = dict(zip(["init_block.weight", *places], model.nets[KERNELS].values(), strict=True))
    plain = {key: converted(value, kernels.get(key, "cv")) for key, value in state.items()}
    torch.save(plain, tmp_path / "plain.pth")
    image = np.kron(np.random.default_rng(0).integers(0, 256, (6, 6, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    result = PiDiNet(str(tmp_path / "plain.pth"), "cpu")(image, None)
    np.testing.assert_allclose(result, PiDiNet(str(path), "cpu")(image, None), atol=1e-4)
    bare = model.PiDiNet(20, model.config_model(KERNELS)).state_dict()
    torch.save({f"module.{key}": value for key, value in bare.items()}, tmp_path / "bare.pth")
    assert PiDiNet(str(tmp_path / "bare.pth"), "cpu")(image, None).shape == (72, 72)


def converted(weight: torch.Tensor, kind: str) -> torch.Tensor:
    """A kernel of pixel differences as a plain kernel (Su et al. 2021, section 3.3)."""
    rows = weight.flatten(2) if weight.ndim == 4 else weight
    if kind == "cd":
        weight = weight.clone()
        weight[:, :, 1, 1] -= rows.sum(2)
    elif kind == "ad":
        weight = (rows - rows[:, :, [3, 0, 1, 6, 4, 2, 7, 8, 5]]).view_as(weight)
    elif kind == "rd":
        wide = weight.new_zeros(*weight.shape[:2], 25)
        wide[:, :, [0, 2, 4, 10, 14, 20, 22, 24]] = rows[:, :, 1:]
        wide[:, :, [6, 7, 8, 11, 13, 16, 17, 18]] = -rows[:, :, 1:]
        weight = wide.view(*weight.shape[:2], 5, 5)
    return weight
