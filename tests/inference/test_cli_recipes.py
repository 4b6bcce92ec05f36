"""python -m ragaf_exp.sample edits=RECIPE makes an image of the studio again."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ragaf_exp.core.edits import RegionEdit
from ragaf_exp.data.uploads import png
from ragaf_exp.inference.recipes import ImageRecipe, Settings, SketchRecipe, with_recipe
from ragaf_exp.inference.recipes.write import to_json
from ragaf_exp.sample import main

RUN = {"name": "tiny/0", "checksum": "0"}


@pytest.fixture
def recipe() -> SketchRecipe:
    """A circle, whose region was parted by hand, with a prompt for one half."""
    sketch = np.zeros((32, 32), np.uint8)
    cv2.circle(sketch, (16, 16), 10, 255, 1)
    labels = np.zeros((32, 32), np.int16)
    cv2.circle(filled := np.zeros((32, 32), np.uint8), (16, 16), 10, 1, -1)
    labels[(filled > 0) & (np.arange(32) < 16)[None]] = 1
    labels[(filled > 0) & (np.arange(32) >= 16)[None]] = 2
    edits = (RegionEdit(), RegionEdit("red"), RegionEdit("blue", importance=1.5))
    return SketchRecipe(sketch, labels, "a mint background", edits, Settings(5, 3, None, "ddim"))


def saved(recipe, path: Path) -> Path:
    content = to_json(recipe, RUN, packed=True)
    path.write_bytes(with_recipe(np.zeros((32, 32, 3), np.uint8), content))
    path.with_suffix(".json").write_text(json.dumps(content))
    return path


def test_a_recipe_stands_for_drawing_regions_prompt_and_settings(cli, finished, recipe, tmp_path):
    path = saved(recipe, tmp_path / "made.png")
    images = []
    for name, edits in (("a", path), ("b", path.with_suffix(".json"))):
        status, _, err = cli(main, f"run={finished}", f"edits={edits}", f"out={tmp_path / name}")
        assert status == 0, err
        images.append(np.asarray(Image.open(tmp_path / name / "stage2.png")))
    assert np.array_equal(*images)
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert (result["seed"], result["steps"], result["scheduler"]) == (5, 3, "ddim")
    assert result["prompt"] == "a mint background" and result["regions"] == 3  # the drawing alone has two
    edits = {entry["prompt"]: entry["importance"] for entry in result["edits"]}
    assert edits == {"": 1, "red": 1, "blue": 1.5}


def test_arguments_win_over_the_recipe(cli, finished, recipe, tmp_path):
    path = saved(recipe, tmp_path / "made.png")
    status, _, err = cli(main, f"run={finished}", f"edits={path}", f"out={tmp_path / 'a'}", "seed=6", 'prompt="red"')
    assert status == 0, err
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert (result["seed"], result["steps"], result["prompt"]) == (6, 3, "red")


def test_a_recipe_with_an_image_keeps_its_pixels_outside_the_edited_region(cli, finished, recipe, tmp_path):
    keep = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    redo = SketchRecipe(recipe.sketch, recipe.labels, "", recipe.regions, recipe.settings, keep, frozenset({1}), grow=0.0)
    status, _, err = cli(main, f"run={finished}", f"edits={saved(redo, tmp_path / 'made.png')}", f"out={tmp_path / 'a'}")
    assert status == 0, err
    image = np.asarray(Image.open(tmp_path / "a" / "stage2.png"))
    assert np.array_equal(image[recipe.labels != 1], keep[recipe.labels != 1])
    assert (image[recipe.labels == 1] != keep[recipe.labels == 1]).any() and not (tmp_path / "a" / "stage1.png").exists()


def test_with_another_drawing_edits_go_by_a_point_of_their_region(cli, finished, recipe, tmp_path):
    picture = np.full((64, 64, 3), 255, np.uint8)
    cv2.circle(picture, (32, 32), 24, (0, 0, 0), 2)
    (tmp_path / "larger.png").write_bytes(png(picture))
    only = SketchRecipe(recipe.sketch, recipe.labels, "", (RegionEdit(), RegionEdit("red")))
    path = saved(only, tmp_path / "made.png")
    status, _, err = cli(main, f"run={finished}", f"sketch={tmp_path}/larger.png", f"edits={path}", f"out={tmp_path / 'a'}")
    assert status == 0, err
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["regions"] == 2 and [entry["prompt"] for entry in result["edits"]] == ["", "red"]


def test_refusals_name_the_file_and_the_remedy(refused, finished, recipe, tmp_path):
    plain, out = tmp_path / "plain.png", f"out={tmp_path / 'a'}"
    plain.write_bytes(png(np.zeros((4, 4, 3), np.uint8)))
    refused(main, f"run={finished}", f"edits={plain}", out, says=("plain.png", "no recipe"))
    refused(main, f"run={finished}", f"edits={tmp_path}/none.png", out, says=("none.png", "no such file"))
    image = ImageRecipe(png(np.zeros((4, 4, 3), np.uint8)), None)
    path = saved(image, tmp_path / "edit.png")
    refused(main, f"run={finished}", f"edits={path}", out, says=("edit.png", "image="))
    other = SketchRecipe(np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.int16))
    refused(main, f"run={finished}", f"edits={saved(other, tmp_path / 'small.png')}", out, says=("16", "samples 32"))
    broken = {**to_json(recipe, RUN), "seed": "x"}
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    refused(main, f"run={finished}", f"edits={tmp_path}/broken.json", out, says=("broken.json", "seed=x"))
