"""python -m ragaf_exp.sample with edits=FILE.json and keep=IMAGE, alone and in a batch file, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from ragaf_exp.core.errors import UserError
from ragaf_exp.inference.edit_files import read_edits
from ragaf_exp.regions.points import nearest_region, region_at, region_points
from ragaf_exp.sample import main

MIDDLE = [0.5, 0.5]


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    picture = Image.new("L", (64, 64), 255)
    ImageDraw.Draw(picture).ellipse((12, 12, 52, 52), outline=0, width=3)
    picture.save(tmp_path / "ring.png")
    return tmp_path / "ring.png"


def edits_file(folder: Path, *entries: dict, **more) -> Path:
    path = folder / "edits.json"
    path.write_text(json.dumps({"regions": list(entries), **more}))
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_point_names_a_region_and_the_result_says_what_it_read(cli, finished, ring, tmp_path):
    edits = edits_file(tmp_path, {"at": MIDDLE, "prompt": "Green, zzz"})
    made = tmp_path / "made"
    sketch, prompt = f"sketch={ring}", 'prompt="a red circle"'
    status, _, err = cli(main, f"run={finished}", sketch, prompt, f"edits={edits}", f"out={made}")
    assert status == 0, err
    result = json.loads((made / "result.json").read_text())
    (entry,) = [e for e in result["edits"] if e["prompt"]]
    assert entry["prompt"] == "Green, zzz" and entry["read"] == "Green ," and entry["left_out"] == ["zzz"]
    x, y = result["region_points"][entry["region"]]
    assert abs(x - 0.5) < 0.1 and abs(y - 0.5) < 0.1 and result["regions"] == 2


def test_keep_changes_only_the_regions_of_the_file(cli, finished, ring, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    common = (f"run={finished}", f"sketch={ring}", 'prompt="a red circle"')
    assert cli(main, *common, f"out={first}")[0] == 0
    edits = edits_file(tmp_path, {"at": MIDDLE, "prompt": "blue"}, {"at": [0.02, 0.02], "locked": True})
    keep = first / "stage2.png"
    assert cli(main, *common, f"edits={edits}", f"keep={keep}", "strength=1", f"out={second}")[0] == 0
    before, after = pixels(keep), pixels(second / "stage2.png")
    corner = np.s_[:6, :6]
    assert np.array_equal(before[corner], after[corner]) and not np.array_equal(before[16, 16], after[16, 16])
    assert not (second / "stage1.png").exists()


def test_a_batch_file_has_columns_for_edits_and_keep(cli, finished, ring, tmp_path):
    edits_file(tmp_path, {"at": MIDDLE, "prompt": "blue"})
    Image.new("RGB", (32, 32), "white").save(tmp_path / "keep.png")
    table = tmp_path / "rows.csv"
    table.write_text("sketch,prompt,edits,keep\nring.png,a red circle,,\nring.png,a red circle,edits.json,\n"
                     "ring.png,a red circle,edits.json,keep.png\n")  # fmt: skip
    out = tmp_path / "out"
    assert cli(main, f"run={finished}", f"batch={table}", f"out={out}")[0] == 0
    plain, edited, redone = (pixels(out / f"{i:04d}" / "stage2.png") for i in range(3))
    assert not np.array_equal(plain, edited) and (redone[:3] == 255).all()


WRONG = [
    ([{"at": [0.5, 1.5], "prompt": "red"}], "shares of width and height"),
    ([{"index": 7, "prompt": "red"}], "regions 0 to 1; region 1 is at"),
    ([{"index": 0, "at": MIDDLE}], "either"),
    ([{"at": MIDDLE, "colour": "red"}], "unknown key 'colour'"),
    ([{"at": MIDDLE, "importance": 3}], "entry 0: importance=3.0: must be between 0 and 2"),
    ([{"at": MIDDLE, "start": 0.5, "end": 0.2}], "entry 0: start=0.5, end=0.2: must be increasing shares"),
    ([{"at": MIDDLE, "locked": 1}], "locked=1: must be true or false"),
    ([{"at": MIDDLE}, {"at": [0.5, 0.45]}], "two entries name region 1"),
]


@pytest.mark.parametrize("entries, says", WRONG)
def test_a_wrong_file_is_one_line(refused, finished, ring, tmp_path, entries, says):
    edits = edits_file(tmp_path, *entries)
    refused(main, f"run={finished}", f"sketch={ring}", "prompt=x", f"edits={edits}", f"out={tmp_path / 'o'}", says=(says,))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"regions": 3}', '{"regions": [3]}', '{"regions": [], "grow": 2}'])
def test_what_is_no_file_of_edits_is_refused(content, tmp_path):
    path = tmp_path / "edits.json"
    path.write_text(content)
    with pytest.raises(UserError, match="edits.json"):
        read_edits(path)


def test_a_point_on_no_region_names_the_nearest(tmp_path):
    from ragaf_exp.core.types import Regions

    labels = np.full((10, 20), -1, np.int16)
    labels[2:5, 2:5], labels[6:9, 12:19] = 0, 1
    regions = Regions(labels, 2, -1, np.full(2, -1, np.int16), np.zeros(2, np.int16))
    file = read_edits(edits_file(tmp_path, {"at": [0.5, 0.8], "prompt": "red"}))
    with pytest.raises(UserError, match=r"no region there; the nearest is region 1, at \[0\.\d+, 0\.75\]"):
        file.resolve(regions)


def test_keep_alone_is_refused(refused, finished, ring, tmp_path):
    out = tmp_path / "out"
    refused(main, f"run={finished}", f"sketch={ring}", "prompt=x", f"keep={ring}", f"out={out}", says=("edits=",))


@given(arrays(np.int16, (7, 11), elements=st.integers(-1, 4)))
def test_the_point_of_a_region_lies_in_it(labels):
    for region, (x, y) in enumerate(region_points(labels, 5)):
        if (labels == region).any():
            assert region_at(labels, x, y) == region == nearest_region(labels, x, y)
