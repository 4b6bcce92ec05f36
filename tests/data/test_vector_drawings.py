"""Quick, Draw! and TU-Berlin in their official layouts, made by the tests."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ragaf_exp.audit import main as audit
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.sources.quickdraw import QuickDraw
from ragaf_exp.data.sources.strokes import alone, draw_strokes, normalised, silhouette
from ragaf_exp.data.sources.svg import read_svg
from ragaf_exp.data.sources.tuberlin import TuBerlin
from ragaf_exp.data.split import SPLITS

COORDINATE = st.floats(-1e4, 1e4)


def circle(points: int = 24, radius: float = 100.0) -> list[list[float]]:
    angles = np.linspace(0, 2 * np.pi, points)
    return [(radius + radius * np.cos(angles)).tolist(), (radius + radius * np.sin(angles)).tolist()]


def square(side: float = 200.0) -> list[list[float]]:
    return [[0, side, side, 0, 0], [0, 0, side, side, 0]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "simplified"
    folder.mkdir()
    for name, stroke in (("cat", circle()), ("The Eiffel Tower", square()), ("apple", circle(12, 60))):
        lines = [
            {"key_id": str(1000 + i), "word": name, "recognized": i % 5 != 0, "countrycode": "DE", "timestamp": "2017",
             "drawing": [stroke, [[10 + i, 90], [20, 100]]]} for i in range(30)]  # fmt: skip
        (folder / f"full_simplified_{name}.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_single_drawings(root: Path):
    source = QuickDraw(str(root), size=64)
    items = [item for split in SPLITS for item in source.split(split)]
    assert len(items) == 3 * 24, "unrecognised drawings are left out"
    named = {"a cat", "an Eiffel tower", "an apple"}
    assert {item.caption for item in items} == {f"a drawing of {name}" for name in named}
    for item in items[::9]:
        assert np.array_equal(item.image[..., 0], np.rint(255 * (1 - item.drawing)).astype(np.uint8))
        assert item.drawing.max() == 1 and 0.02 < item.drawing.mean() < 0.3
    assert len(QuickDraw(str(root), drop=[]).usable) == 90
    assert len(QuickDraw(str(root), per_category=7, categories=["cat"]).usable) == 7


def test_raw_strokes_with_times_look_the_same(root: Path, tmp_path: Path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in root.iterdir():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:  # other units, another origin, and a time for each point
            line["drawing"] = [[[3 * x + 500 for x in s[0]], [3 * y + 90 for y in s[1]], [*range(len(s[0]))]]
                               for s in line["drawing"]]  # fmt: skip
        (raw / path.name.replace("simplified", "raw")).write_text("\n".join(map(json.dumps, lines)))
    one, other = (QuickDraw(str(folder), size=48).split("train")[5] for folder in (root, raw))
    assert one.key == other.key and np.abs(one.drawing - other.drawing).max() < 0.26


@pytest.mark.parametrize("size", [64, 128, 256])
def test_strokes_scale_with_the_picture(size: int):
    drawing = alone(normalised([np.array(square()).T]), size)
    assert drawing.mean() == pytest.approx(alone(normalised([np.array(square()).T]), 512).mean(), rel=0.25)
    rows, columns = np.nonzero(drawing > 0.5)
    assert rows.min() == pytest.approx(0.08 * size, abs=1.5 + size / 100)
    assert rows.min() == pytest.approx(size - 1 - rows.max(), abs=1.5) and columns.min() == pytest.approx(rows.min(), abs=1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=1, max_size=6), min_size=1, max_size=5))
def test_any_strokes_are_drawn_inside(strokes: list):
    drawing = alone(normalised([np.array(stroke) for stroke in strokes]), 48)
    assert drawing.shape == (48, 48) and drawing.min() >= 0 and 0 < drawing.max() <= 1
    assert not drawing[0].any() and not drawing[:, 0].any(), "the margin is empty"


def test_a_silhouette_fills_outlines_with_gaps():
    angles = np.linspace(0.2, 2 * np.pi, 60)
    points = np.stack([32 + 20 * np.cos(angles), 32 + 20 * np.sin(angles)], 1)
    filled = silhouette(draw_strokes([points], 64, 1.0, (0, 0)))
    assert filled.sum() == pytest.approx(np.pi * 21**2, rel=0.15) and filled[32, 32] and not filled[2, 2]


def test_scenes_name_their_drawings_from_left_to_right(root: Path):
    source = QuickDraw(str(root), size=96, scenes=True, train=20, val=2, test=2, max_objects=3, val_share=0.2)
    items = list(source.split("train"))
    assert len(items) == 20 and {len(item.objects) for item in items} == {1, 2, 3}
    for item in items:
        phrases = [item.caption[slice(*thing.span)] for thing in item.objects]
        assert all(thing.shape in phrase for thing, phrase in zip(item.objects, phrases, strict=True))
        centres = [np.nonzero(item.object_map == thing.label)[1].mean() for thing in item.objects]
        assert centres == sorted(centres)
        assert (item.drawing[item.object_map == 0] > 0.5).mean() < 0.02, "strokes belong to masks"
    again = pickle.loads(pickle.dumps(source.split("train")))  # noqa: S301 - our own
    assert np.array_equal(again[3].image, items[3].image)
    assert source.split("train").captions(99) == [item.caption for item in items]


def test_damaged_lines(root: Path):
    path = root / "full_simplified_cat.ndjson"
    path.write_text(path.read_text() + "{not json\n" + '{"key_id": "9", "recognized": true, "drawing": []}\n')
    with pytest.raises(UserError, match="line 31 holds no drawing"):
        QuickDraw(str(root))
    assert QuickDraw(str(root), on_error="skip").skipped == 2


@pytest.mark.parametrize("changes, says", [
    ({"categories": ["dog"]}, "no file of dog"), ({"drop": ["ugly"]}, "unrecognised"), ({"max_objects": 9}, "at most 4"),
])  # fmt: skip
def test_refusals(root: Path, changes: dict, says: str):
    """Mistakes in values give one line.

    Args:
        root: A valid folder.
        changes: Values that differ from the defaults.
        says: Part of the message.
    """
    with pytest.raises(UserError, match=says):
        QuickDraw(str(root), **changes)


SVG = ('<svg viewBox="0 0 800 800" width="800" height="800" xmlns="http://www.w3.org/2000/svg">'
       '<path d="M200 200 L600 200 L600 600 L200 600 Z" fill="none" stroke="#000" stroke-width="14"/></svg>')  # fmt: skip


@pytest.fixture
def berlin(tmp_path: Path) -> Path:
    for name in ("cell phone", "owl"):
        (tmp_path / "tu" / name).mkdir(parents=True)
        for i in range(12):
            picture = Image.new("L", (111, 111), 255)
            ImageDraw.Draw(picture).rectangle((28, 28, 83, 83), outline=0, width=2)
            picture.save(tmp_path / "tu" / name / f"{i}.png")
        (tmp_path / "tu" / name / "99.svg").write_text(SVG)
    return tmp_path / "tu"


def test_tu_berlin_as_png_and_svg(berlin: Path):
    pytest.importorskip("resvg_py")
    source = TuBerlin(str(berlin), size=64)
    items = {item.key: item for split in SPLITS for item in source.split(split)}
    assert len(items) == 26
    assert {item.caption for item in items.values()} == {"a drawing of a cell phone", "a drawing of an owl"}
    png, svg = items["owl/3"].drawing > 0.4, items["owl/99"].drawing > 0.4
    assert abs(int(png.sum()) - int(svg.sum())) < 0.4 * png.sum() and svg[16, 20:44].all() and not svg[32, 32]
    assert items["owl/99"].image[16, 30, 0] < 100 and items["owl/99"].image[32, 32, 0] == 255


def test_svg_of_any_aspect_and_damaged(tmp_path: Path):
    pytest.importorskip("resvg_py")
    (tmp_path / "tall.svg").write_text(SVG.replace('0 0 800 800" width="800"', '200 0 400 800" width="400"'))
    tall = read_svg(tmp_path / "tall.svg", 40)
    assert tall.shape == (40, 40, 4) and not tall[:, :9].any()
    (tmp_path / "bad.svg").write_text("<svg")
    for name, says in (("bad.svg", "no SVG"), ("none.svg", "can't be read")):
        with pytest.raises(UserError, match=says):
            read_svg(tmp_path / name, 40)


def test_audit_of_vector_drawings(cli, berlin: Path):
    pytest.importorskip("resvg_py")
    (berlin / "owl" / "99.svg").write_text("<svg")
    out = berlin.parent / "a.html"
    status, printed, _ = cli(audit, "data=tuberlin", f"data.root={berlin}", "data.size=32", f"out={out}")
    assert status == 1 and "99.svg: is damaged" in printed and "1 vector" in out.read_text()
