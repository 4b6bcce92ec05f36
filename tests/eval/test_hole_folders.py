"""Figures within holes: of folders of any tool, LPIPS within the hole, and quartiles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.items import ItemRow
from eval.metrics.colour import delta_e_2000
from eval.metrics.holes import psnr_hole
from eval.registry import METRICS
from eval.results import Result
from ragaf_exp.commands import evaluate as command
from ragaf_exp.data.masks.generate import Masks
from ragaf_exp.data.sources.scenes import Scenes

COUNT = 6


@pytest.fixture
def folders(tmp_path) -> Path:
    """Results with noise in the hole alone, references, and masks, one of which is empty."""
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        truth = Scenes(test=COUNT).split("test")[i].image
        hole = Masks()(str(i), 64, 64) if i else np.zeros((64, 64), bool)
        noisy = np.clip(truth + rng.normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
        pictures = {"images": np.where(hole[..., None], noisy, truth), "reference": truth, "masks": np.uint8(255) * hole}
        for name, picture in pictures.items():
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    return tmp_path


def words(folders: Path, *more: str) -> list[str]:
    names = [f"{name}={folders / name}" for name in ("images", "reference", "masks")]
    return [*names, f"out={folders / 'out.json'}", "eval.metrics=[]", "eval.bootstrap=20", *more]


def test_the_holes_of_a_folder_are_scored(folders, cli):
    status, out, err = cli(command.main, *words(folders, "hole=white"))
    assert status == 0, err
    metrics = json.loads((folders / "out.json").read_text())["metrics"]
    assert metrics["psnr_hole"]["n"] == COUNT - 1, "an empty hole has no value"
    assert metrics["kept_unchanged"] | {"value": 1, "n": COUNT} == metrics["kept_unchanged"]
    one, truth, mask = (np.asarray(Image.open(folders / name / "1.png")) for name in ("images", "reference", "masks"))
    items = {row["key"]: row["values"] for row in map(json.loads, (folders / "out.items.jsonl").read_text().splitlines())}
    assert items["1"]["psnr_hole"] == pytest.approx(psnr_hole(one, truth, mask > 0), abs=1e-3)
    assert "psnr_hole" in out and metrics["psnr_hole"]["value"] < metrics["psnr"]["value"]


def test_a_change_outside_is_measured(folders, cli):
    picture = np.asarray(Image.open(folders / "images/2.png")).copy()
    outside = np.argwhere(np.asarray(Image.open(folders / "masks/2.png")) == 0)[0]
    picture[tuple(outside)] ^= 1
    Image.fromarray(picture).save(folders / "images/2.png")
    assert cli(command.main, *words(folders, "hole=white"))[0] == 0
    metrics = json.loads((folders / "out.json").read_text())["metrics"]
    assert metrics["kept_unchanged"]["value"] == pytest.approx((COUNT - 1) / COUNT)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: [*w, "hole=grey"], "hole=grey: must be one of"),
        (lambda w: w, "or hole=auto"),
        (lambda w: [x for x in [*w, "hole=white"] if not x.startswith("reference")], "and reference=DIR"),
        (lambda w: [x for x in [*w, "hole=white"] if not x.startswith("masks")], "needs masks=DIR"),
        (lambda w: [*w, "hole=transparent"], "has no alpha channel"),
    ],
)
def test_mistakes_are_one_line(folders, change, says, cli):
    status, _, err = cli(command.main, *change(words(folders)))
    assert status == 2 and says in err.splitlines()[-1] and err.count("error: ") == 1


def test_a_mask_of_another_size_is_one_line(folders, cli):
    Image.new("L", (32, 64)).save(folders / "masks/3.png")
    status, _, err = cli(command.main, *words(folders, "hole=white"))
    assert status == 2 and "3.png: is 32x64, its image 64x64" in err.splitlines()[-1]


def test_lpips_counts_the_hole_alone(shared_data):
    from eval.lpips import Lpips

    weights = shared_data.parent / "weights"
    net = weights / "squeezenet11" / "squeezenet1_1_torchvision_fp16.pth"
    if not net.exists():
        pytest.skip(f"no SqueezeNet weights: {net} is absent")
    lpips = Lpips("squeeze", str(net), str(weights / "lpips" / "v0.1" / "squeeze.pth"), "cpu")
    truth = Scenes().split("test")[0].image
    hole = np.zeros((64, 64), bool)
    hole[20:40, 20:40] = True
    noise = np.random.default_rng(0).integers(0, 256, truth.shape).astype(np.uint8)
    far, empty = np.zeros_like(hole), np.zeros_like(hole)
    far[48:, 48:] = True
    inside, outside = np.where(hole[..., None], noise, truth), np.where(far[..., None], noise, truth)
    same, painted, corner, none = lpips.in_holes([truth, inside, outside, inside], [truth] * 4, [hole, hole, hole, empty])
    assert same == pytest.approx(0, abs=1e-6) and none is None
    assert painted > 3 * corner and painted > lpips([inside], [truth])[0]
    whole = lpips.in_holes([inside], [truth], [np.ones_like(hole)])[0]
    assert whole == pytest.approx(float(lpips([inside], [truth])[0]), rel=0.2), "upsampled maps have nearly the same mean"


def test_the_perceptual_loss_has_gradients(shared_data):
    import torch

    from eval.lpips import loss_network

    weights = shared_data.parent / "weights"
    net = weights / "squeezenet11" / "squeezenet1_1_torchvision_fp16.pth"
    if not net.exists():
        pytest.skip(f"no SqueezeNet weights: {net} is absent")
    network = loss_network("squeeze", str(net), str(weights / "lpips" / "v0.1" / "squeeze.pth"))
    image, truth = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32)
    network(image, truth).mean().backward()
    assert image.grad.abs().sum() > 0 and not any(p.requires_grad for p in network.parameters())


def test_some_metrics_have_quartiles():
    result = Result([ItemRow(str(i)) for i in range(5)])
    values = {"delta_e_2000": [1.0, 2.0, 3.0, 4.0, 10.0], "mse": [1.0] * 5}
    result.add(values, {}, {"resamples": 20}, "gray_world/")
    assert result.metrics["gray_world/delta_e_2000"]["quartiles"] == [2.0, 3.0, 4.0]
    assert "quartiles" not in result.metrics["gray_world/mse"] and METRICS["angular_error"].quartiles


def test_colour_corrections_of_a_folder_are_scored(folders, cli):
    """By pairs; without a reference, or with another value, it is one line."""
    given = [f"images={folders / 'images'}", f"out={folders / 'out.json'}", "eval.metrics=[]", "eval.bootstrap=20"]
    reference = f"reference={folders / 'reference'}"
    status, _, err = cli(command.main, *given, reference, "colours=true")
    assert status == 0, err
    metrics = json.loads((folders / "out.json").read_text())["metrics"]
    items = {row["key"]: row["values"] for row in map(json.loads, (folders / "out.items.jsonl").read_text().splitlines())}
    one, truth = (np.asarray(Image.open(folders / name / "1.png")) for name in ("images", "reference"))
    assert items["1"]["delta_e_2000"] == pytest.approx(delta_e_2000(one, truth), abs=1e-3)
    assert items["0"]["angular_error"] < 1e-6 and metrics["mse_255"]["n"] == COUNT
    assert cli(command.main, *given, reference)[0] == 0
    assert "delta_e_2000" not in json.loads((folders / "out.json").read_text())["metrics"]
    for more, message in (([reference, "colours=1"], "must be true or false"),
                          ([f"sketches={folders / 'masks'}", "colours=true"], "needs reference=DIR")):  # fmt: skip
        status, _, err = cli(command.main, *given, *more)
        assert status == 2 and message in err and err.count("\n") == 1
