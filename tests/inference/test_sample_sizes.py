"""Sampling at other sizes than the training's: size=WIDTHxHEIGHT, and the survey of what a run makes of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ragaf_exp import sample
from ragaf_exp.commands import size_survey
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.sizes import check_multiple, parse_size, size_text
from ragaf_exp.data.sources.scenes import Scenes


@pytest.fixture
def sketch(tmp_path):
    picture = Image.new("L", (90, 70), 255)
    ImageDraw.Draw(picture).ellipse((20, 10, 70, 60), outline=0, width=3)
    picture.save(tmp_path / "sketch.png")
    return tmp_path / "sketch.png"


@pytest.mark.parametrize(("text", "width", "height"), [("48x32", 48, 32), ("24X64", 24, 64), ("40", 40, 40)])
def test_images_have_the_size_that_is_given(text, width, height, cli, finished, sketch, tmp_path):
    given = (f"run={finished}", f"sketch={sketch}", 'prompt="a red circle"', f"out={tmp_path / 'out'}", f"size={text}")
    status, _, err = cli(sample.main, *given)
    assert status == 0, err
    for name in ("sketch", "stage1", "stage2"):
        assert Image.open(tmp_path / "out" / f"{name}.png").size == (width, height), name
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["size"] == (width if width == height else f"{width}x{height}") and result["regions"] == 2
    assert (tmp_path / "out" / "attention_steps.png").is_file()


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ("50x32", ("size=50x32", "multiples of 8", "the nearest is 48x32")),
        ("33", ("size=33", "the nearest is 32")),
        ("wide", ("size=wide", "768x512")),
        ("8x512", ("size=8x512", "16 to 2048", "16x512")),
        ("4096", ("size=4096", "take 2048")),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_nearest(size, says, refused, finished, sketch, tmp_path):
    refused(sample.main, f"run={finished}", f"sketch={sketch}", "prompt=x", f"out={tmp_path}", f"size={size}", says=says)


@given(height=st.integers(16, 2048), width=st.integers(16, 2048), unit=st.sampled_from([4, 8, 64]))
def test_the_nearest_size_is_valid(height, width, unit):
    assert parse_size(size_text(height, width)) == (height, width)
    try:
        check_multiple(height, width, unit)
        assert height % unit == width % unit == 0
    except UserError as error:
        nearest = str(error).rpartition(" ")[2]
        across, _, down = nearest.partition("x")
        offered = int(down or across), int(across)
        assert all(side % unit == 0 and side >= unit for side in offered)
        assert all(abs(a - b) <= max(unit / 2, unit - b) for a, b in zip(offered, (height, width), strict=True))


def test_the_survey_scores_scenes_at_each_size(cli, finished, tmp_path):
    out, picture = tmp_path / "sizes.json", tmp_path / "sizes.png"
    given = (f"run={finished}", "sizes=[32,48x32]", "items=2", f"out={out}", f"picture={picture}")
    status, text, err = cli(size_survey.main, *given)
    assert status == 0, err
    rows = json.loads(out.read_text())["sizes"]
    assert [(row["height"], row["width"]) for row in rows] == [(32, 32), (32, 48)]
    for row in rows:
        assert set(row["metrics"]) == {"stage1/binding_accuracy", "binding_accuracy", "sketch_f1"}
        value = row["metrics"]["binding_accuracy"]
        assert value["ci95"][0] <= value["value"] <= value["ci95"][1] and value["n"] >= 4
    assert "48x32" in text and picture.is_file()


def test_the_survey_refuses_what_it_cannot_measure(refused, finished, tmp_path):
    refused(size_survey.main, says=("run=: missing",))
    refused(size_survey.main, f"run={finished}", "items=1", says=("items=1",))
    refused(size_survey.main, f"run={finished}", "sizes=64x20", says=("sizes=64x20", "64x24"))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (32, 128)])
def test_scenes_of_any_aspect_are_whole_and_exact(height, width):
    scenes = Scenes(size=height, width=width, test=6)
    for item in scenes.split("test"):
        assert item.image.shape == (height, width, 3) and item.drawing.shape == item.object_map.shape == (height, width)
        for thing in item.objects:
            rows, columns = np.nonzero(item.object_map == thing.label)
            assert rows.min() > 0 and rows.max() < height - 1 and columns.min() > 0 and columns.max() < width - 1
    spread = np.concatenate([np.nonzero(item.object_map)[width > height] for item in scenes.split("test")])
    assert spread.max() - spread.min() > 0.6 * max(height, width), "objects fill the longer side too"


def test_scenes_of_one_aspect_are_the_same_at_every_size():
    small, large = (Scenes(size=size, width=2 * size, test=3).split("test") for size in (32, 64))
    for one, other in zip(small, large, strict=True):
        assert one.caption == other.caption
        shrunk = other.image.reshape(32, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(shrunk - one.image).mean() < 6
    with pytest.raises(UserError, match="data.width=50"):
        Scenes(width=50)
