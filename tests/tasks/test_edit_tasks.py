"""Inpainting, removal and white balance from training to an edited file, on tiny runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Batch, Item
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.experiment import run
from ragaf_exp.inference.load import load_run
from ragaf_exp.inference.pipeline import to_uint8
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.sample import main
from ragaf_exp.tasks.white_balance import WhiteBalance

pytestmark = pytest.mark.long

ONE_STAGE = "stage=coarse stage.coarse.steps=4 stage.validate_every=4 stage.checkpoint_every=4 eval.metrics=[]".split()
TASKS = {
    "inpaint": ["+experiment=inpaint", "task.image_dropout=0.2"],
    "remove": ["+experiment=remove"],
    "white_balance": ["+experiment=white_balance", "task.light=true"],
}


def overrides(tiny: list[str], task: str) -> list[str]:
    """The overrides of a tiny run of one stage of a task."""
    replaced = {word.partition("=")[0] for word in ONE_STAGE}
    return [*TASKS[task], *(word for word in tiny if word.partition("=")[0] not in replaced), *ONE_STAGE]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> dict[str, Path]:
    """A finished run of each task."""
    root = tmp_path_factory.mktemp("tasks")
    return {task: run(compose_config([*overrides(tiny, task), f"runs={root}/{task}"])).path for task in TASKS}


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """A picture of noise, and masks of it."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (70, 100, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    mask = np.zeros((70, 100), np.uint8)
    for name in ("empty", "hole", "full"):
        if name == "hole":
            mask[20:40, 30:60] = 255
        Image.fromarray(np.full_like(mask, 255) if name == "full" else mask).save(tmp_path / f"{name}.png")
    Image.fromarray(mask[:60]).save(tmp_path / "small.png")
    return {path.stem: path for path in tmp_path.glob("*.png")}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_run_is_scored_with_its_rivals_and_shown_next_to_them(runs, task):
    folder = runs[task]
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    judged, rival = ("delta_e_2000", "gray_world") if task == "white_balance" else ("psnr_hole", "telea")
    assert metrics[judged]["n"] == metrics[f"{rival}/{judged}"]["n"] == 4
    assert metrics[judged]["higher_is_better"] == metrics[f"{rival}/{judged}"]["higher_is_better"]
    index = json.loads((folder / "samples/test/index.json").read_text())
    assert "given" in index[0]["panels"] and rival in index[0]["rivals"]
    assert (folder / "samples/test/0000" / f"{rival}.png").exists()
    page = (folder / "report.html").read_text()
    assert rival.replace("_", " ").capitalize() in page and ("Delta E 2000" in page or "PSNR in the hole" in page)


@pytest.mark.parametrize("task", ["inpaint", "remove"])
def test_the_evaluated_images_keep_every_byte_outside(runs, task):
    metrics = json.loads((runs[task] / "metrics.json").read_text())["metrics"]
    assert metrics["kept_unchanged"]["value"] == 1


def test_the_network_uses_the_image_around_the_hole(runs):
    """Another image changes the channels next to x_t and the hint; the hole's content is hidden from both."""
    folder, cfg = RunFolder.read(str(runs["inpaint"]), edited=True)
    parts, pipeline = load_run(folder, cfg)
    examples = parts.examples("train")
    batch = collate(examples.first(2))
    assert batch.conditions["given"].shape == (2, 3, 32, 32) and batch.conditions["hole"].shape == (2, 1, 32, 32)
    hidden = batch.conditions["given"][batch.conditions["hole"].expand(-1, 3, -1, -1) > 0]
    assert hidden.abs().max() < 0.004
    other = replace(batch, conditions={**batch.conditions, "given": -batch.conditions["given"]})
    first, second = (pipeline.models["coarse"].condition(each) for each in (batch, other))
    assert (first.extra != second.extra).any() and (first.hint["in"] != second.hint["in"]).any()
    assert (examples.at(0, 0).conditions["hole"] != examples.at(1, 0).conditions["hole"]).any(), "a mask for each step"


# --- files


def edit(cli, run_folder: Path, out: Path, *more: str) -> tuple[int, str]:
    status, _, err = cli(main, f"run={run_folder}", f"out={out}", *more)
    return status, err


def test_an_edited_file_keeps_every_byte_outside_the_hole(cli, runs, files, tmp_path):
    for mask in ("empty", "hole", "full"):
        out = tmp_path / mask
        assert edit(cli, runs["inpaint"], out, f"image={files['image']}", f"mask={files[mask]}")[0] == 0
        hole, before, after = pixels(files[mask]) > 0, pixels(files["image"]), pixels(out / "result.png")
        assert after.shape == before.shape and (after[~hole] == before[~hole]).all()
        assert not hole.any() or (after[hole] != before[hole]).mean() > 0.5
        result = json.loads((out / "result.json").read_text())
        assert "white is the hole (assumed" in result["mask_read_as"] and (out / "comparison.png").exists()


def test_removal_may_change_the_surroundings_up_to_its_reach(cli, runs, files, tmp_path):
    status, err = edit(cli, runs["remove"], tmp_path / "out", f"image={files['image']}", f"mask={files['hole']}")
    assert status == 0, err
    changed = (pixels(tmp_path / "out/result.png") != pixels(files["image"])).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert 10 < rows[0] < 20 and 39 < rows[-1] < 50 and 20 < columns[0] < 30


def test_white_balance_needs_no_mask_and_keeps_the_size(cli, runs, files, tmp_path):
    status, err = edit(cli, runs["white_balance"], tmp_path / "out", f"image={files['image']}")
    assert status == 0, err
    assert pixels(tmp_path / "out/result.png").shape == (70, 100, 3)
    light = json.loads((tmp_path / "out/result.json").read_text())["light"]
    assert set(light) == {"kelvin", "tint", "exposure", "gamma"} and 2000 <= light["kelvin"] <= 20000


def test_a_known_light_is_a_condition(cli, runs, files, tmp_path):
    """On the command line and in a table; the metric of the light that the correction implies is there."""
    image, warm = f"image={files['image']}", "2800,0.02,0,1"
    (tmp_path / "rows.csv").write_text(f'image,light\n{files["image"]},\n{files["image"]},"{warm}"\n')
    for arguments in ([image], [image, f"light={warm}"], [f"batch={tmp_path / 'rows.csv'}"]):
        status, err = edit(cli, runs["white_balance"], tmp_path / f"out{len(arguments)}{arguments[0][:5]}", *arguments)
        assert status == 0, err
    without, with_light = (pixels(tmp_path / f"out{n}image/result.png") for n in (1, 2))
    assert (without != with_light).any(), "the light changes the result"
    for row, expected in enumerate((without, with_light)):
        assert (pixels(tmp_path / f"out1batch/000{row}/result.png") == expected).all()
    figures = json.loads((runs["white_balance"] / "metrics.json").read_text())["metrics"]
    assert figures["mired_error"]["n"] == figures["unchanged/mired_error"]["n"] == 4
    for value, message in (("2800", "kelvin, tint, exposure and gamma"), ("warm", "numbers with commas"),
                           ("100,0,0,1", "2000 to 20000")):  # fmt: skip
        status, err = edit(cli, runs["white_balance"], tmp_path / "bad", image, f"light={value}")
        assert status == 2 and message in err and err.count("\n") == 1


def test_a_light_is_refused_by_a_run_without_it():
    item = Item("a", np.zeros((4, 4, 3), np.uint8), "")
    with pytest.raises(UserError, match="task.light=true"):
        WhiteBalance().request_item(item, {"image": item.image, "light": np.array([2800.0, 0, 0, 1])})


def test_image_guidance_is_a_further_pass_without_the_image(cli, runs, files, tmp_path):
    given = [f"image={files['image']}", f"mask={files['hole']}"]
    for name, more in {"none": [], "one": ["image_guidance=1"], "strong": ["image_guidance=4"]}.items():
        status, err = edit(cli, runs["inpaint"], tmp_path / name, *given, *more)
        assert status == 0, err
    none, one, strong = (pixels(tmp_path / name / "result.png") for name in ("none", "one", "strong"))
    assert (none == one).all() and (one != strong).any()


def test_a_run_without_images_inpaints_by_repaint(cli, finished, files, tmp_path):
    arguments = (f"image={files['image']}", f"mask={files['hole']}", "steps=4", "jump=2", "resamplings=2")
    status, err = edit(cli, finished, tmp_path / "out", *arguments)
    assert status == 0, err
    hole, before, after = pixels(files["hole"]) > 0, pixels(files["image"]), pixels(tmp_path / "out/result.png")
    assert (after[~hole] == before[~hole]).all() and (after[hole] != before[hole]).mean() > 0.5
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["denoisings"] > 8 and result["renoisings"] > 0


def test_repaint_takes_a_table(cli, finished, files, tmp_path):
    (tmp_path / "rows.csv").write_text("image,mask,prompt\nimage.png,hole.png,a red star\nimage.png,empty.png,\n")
    arguments = (f"batch={tmp_path / 'rows.csv'}", "steps=2", "jump=1", "resamplings=2")
    status, err = edit(cli, finished, tmp_path / "out", *arguments)
    assert status == 0, err
    before, after = pixels(files["image"]), [pixels(tmp_path / f"out/000{i}/result.png") for i in range(2)]
    assert (after[0] != before).any() and (after[1] == before).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["mask=small"], "small.png: is 100x60, and"),
        ([], "mask=: missing"),
        (["mask=hole", "hole=transparent"], "has no alpha channel"),
        (["mask=hole", "hole=grey"], "hole=grey: must be one of"),
        (["mask=absent"], "no such file"),
        (["mask=hole", "resamplings=0"], "resamplings=0: must be between 1 and 100"),
    ],
)
def test_mistakes_are_one_line(cli, runs, files, tmp_path, arguments, message):
    given = [f"mask={files.get(a[5:], tmp_path / 'absent.png')}" if a.startswith("mask=") else a for a in arguments]
    status, err = edit(cli, runs["inpaint"], tmp_path / "out", f"image={files['image']}", *given)
    assert status == 2 and message in err and err.count("\n") == 1


def test_the_wrong_data_is_one_line(tiny, tmp_path):
    with pytest.raises(UserError, match="take data=removal"):
        run(compose_config([*overrides(tiny, "remove"), "data=scenes", f"runs={tmp_path}"]))


def test_repaint_of_known_pixels_alone_returns_them(finished):
    """With nothing to paint, the known latent comes back."""
    from ragaf_exp.diffusion.keeping import Known
    from ragaf_exp.diffusion.repaint import RePaint

    folder, cfg = RunFolder.read(str(finished), edited=True)
    parts, pipeline = load_run(folder, cfg)
    batch: Batch = collate(parts.examples("test").first(2))
    latent = parts.codec.encode(batch.image)
    redo = torch.zeros_like(latent[:, :1], dtype=torch.bool)
    pipeline.sampler = RePaint(parts.diffusion, lambda b: Known(latent, redo), 0, 3, 1, 1)
    assert (to_uint8(pipeline(batch).images["stage1"]) == to_uint8(batch.image)).all()
