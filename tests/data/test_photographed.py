"""Photographed sketches have the strokes that they have in even light."""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photographed import PAPER, fold, gradient, on_table, overlap, photo, ruled, step, vignette
from PIL import Image

from ragaf_exp.commands.region_survey import survey_folder
from ragaf_exp.data import images
from ragaf_exp.data.decode import decode
from ragaf_exp.data.images import fit_drawing, read_drawing, stroke_share, warn_of_odd
from ragaf_exp.data.sources.folder import Folder

KINDS = ("pen", "pencil", "marker", "filled")
LEAST = 0.98  # overlap with the strokes in even light
FOLDER = Path("unset")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FOLDER", tmp_path)


def read(grey: np.ndarray, polarity: str = "auto") -> np.ndarray:
    path = FOLDER / "sketch.png"
    Image.fromarray(grey).save(path, compress_level=1)
    return read_drawing(path, polarity)


def even(size: int, light: float = PAPER) -> np.ndarray:
    return np.full((size, size), light)


def check(kind: str, paper: np.ndarray, negative: bool = False, noise: float = 0.0, least: float = LEAST) -> None:
    """Strokes on this paper, and shrunk, against those on even paper."""
    lit, flat = photo(kind, paper, noise), photo(kind, even(len(paper)), noise)
    one, two = (read(255 - grey if negative else grey) for grey in (lit, flat))
    assert overlap(one, two) >= least
    for size in (64, 256):
        assert overlap(fit_drawing(one, size), fit_drawing(two, size)) >= least - 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("low", [205, 195, 160, 117.5])
@pytest.mark.parametrize(("angle", "at"), [(90, 0.05), (0, -0.2), (37, 0.1), (90, -0.3), (200, 0.0)])
def test_shadows(kind: str, low: float, angle: float, at: float) -> None:
    check(kind, step(512, low, angle, at))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("angle", range(0, 360, 45))
def test_gradients_of_any_direction(kind: str, angle: int) -> None:
    check(kind, gradient(512, 120, angle))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [0.3, 0.5, 0.6])
def test_vignettes(kind: str, depth: float) -> None:
    check(kind, vignette(512, depth))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("paper", [step(512, 117.5), gradient(512, 120, 30), vignette(512, 0.5)])
def test_light_strokes_on_dark(kind: str, paper: np.ndarray) -> None:
    check(kind, paper, negative=True)


@pytest.mark.parametrize("size", [256, 1024, 1700])
@pytest.mark.parametrize("kind", ["pen", "filled"])
def test_sizes_and_noise(size: int, kind: str) -> None:
    for paper in (step(size, 160), gradient(size, 120, 60)):
        check(kind, paper, noise=2)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["pen", "filled"]),
    angle=st.floats(0, 360),
    low=st.floats(120, 230),
    at=st.floats(-0.3, 0.3),
    hard=st.booleans(),
    negative=st.booleans(),
)
def test_any_shadow_or_gradient(kind: str, angle: float, low: float, at: float, hard: bool, negative: bool) -> None:
    check(kind, step(384, low, angle, at) if hard else gradient(384, low, angle), negative)


@pytest.mark.parametrize(("light", "angle"), [(0.8, 0), (0.7, 3), (0.6, 0)])
@pytest.mark.parametrize("paper", [even(512), gradient(512, 130, 40)], ids=["even", "gradient"])
def test_graph_paper_is_left_out(light: float, angle: float, paper: np.ndarray) -> None:
    check("pen", paper * ruled(512, light, angle), least=0.97)


@pytest.mark.parametrize(("depth", "angle"), [(0.2, 20), (0.3, 80)])
def test_folds_are_no_strokes(depth: float, angle: float) -> None:
    check("pen", gradient(512, 150, 40) * fold(512, depth, angle), least=0.97)


@pytest.mark.parametrize("tone", [25, 70, 100])
def test_a_table_is_cut_away(tone: float) -> None:
    sketch = photo("pen", even(512))
    one, two = read(on_table(sketch, tone, 30)), read(on_table(sketch, PAPER, 30))
    assert overlap(one, two) >= 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_even_light_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = photo(kind, even(512))
    one = read(grey)
    monkeypatch.setattr(images, "find_ground", lambda *_: None)
    monkeypatch.setattr(images, "without_ruling", lambda strokes: strokes)
    assert np.array_equal(one, read(grey))


def test_real_drawings_are_read_as_before(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = (
        sorted((shared_data / "openmoji72/black").glob("*.png"))[::40]
        + sorted((shared_data / "sketchy/sketch").rglob("*.png"))[::12]
        + sorted((shared_data / "scribbles").glob("*.png"))
    )
    drawings = [read_drawing(path) for path in paths]
    monkeypatch.setattr(images, "find_ground", lambda *_: None)
    monkeypatch.setattr(images, "without_ruling", lambda strokes: strokes)
    for path, one in zip(paths, drawings, strict=True):
        assert overlap(one, read_drawing(path)) > 0.99, path


@cache
def _odd_files(folder: Path) -> dict[str, Path]:
    blank = Image.new("L", (40, 40), 255)
    full = Image.fromarray(photo("marker", even(64)))
    blank.save(folder / "blank.png")
    blank.save(folder / "first.gif", save_all=True, append_images=[full.resize((40, 40))])
    return {name: folder / name for name in ("blank.png", "first.gif")}


@pytest.mark.parametrize("name", ["blank.png", "first.gif"])
def test_a_drawing_without_strokes_is_reported(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _odd_files(tmp_path)[name]
    with caplog.at_level(logging.WARNING):
        warn_of_odd({path: stroke_share(read_drawing(path))})
    (record,) = caplog.records
    assert str(path) in record.getMessage() and "nothing in it is stroke" in record.getMessage()


def test_odd_drawings_are_counted_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_odd({"good.png": 0.1} | {f"{i}.png": 0.49 for i in range(5)})
    (record,) = caplog.records
    assert "0.png: 0.49 of it is stroke" in record.getMessage()
    assert "and 2 more of 6 drawings" in record.getMessage() and "\n" not in record.getMessage()
    caplog.clear()
    warn_of_odd({"good.png": 0.1})
    assert not caplog.records


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_scan_of_few_bits_in_a_deep_file_is_scaled_by_its_maximum(bits: int) -> None:
    grey = photo("pen", even(128))
    deep = np.rint(grey / 255.0 * (2**bits - 1)).astype(np.uint16)
    path = FOLDER / "scan.png"
    Image.fromarray(deep).save(path)
    assert decode(path)[0].max() == 255
    assert overlap(read_drawing(path), read(grey)) > 0.99


def test_a_frame_at_the_border_stays(tmp_path: Path) -> None:
    grey = photo("pen", even(512))
    grey[:5] = grey[-5:] = grey[:, :5] = grey[:, -5:] = 20
    assert (read(grey)[[0, -1]] > 0.5).all()


def test_a_filled_disc_is_no_paper() -> None:
    canvas = np.full((72, 72), 255, np.uint8)
    cv2.circle(canvas, (36, 36), 28, 0, -1, cv2.LINE_AA)
    assert overlap(read(canvas), canvas < 128) > 0.95


def test_a_folder_and_a_survey_report_odd_drawings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "drawings").mkdir()
    rows = []
    for i in range(10):
        name = f"{i}.png"
        Image.new("RGB", (64, 64), (i, 200, 30)).save(tmp_path / name)
        drawn = np.full((64, 64), 255, np.uint8) if i == 3 else photo("pen", even(64))
        Image.fromarray(drawn).save(tmp_path / "drawings" / name)
        rows.append(json.dumps({"file_name": name, "text": "a circle"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    Folder(str(tmp_path), drawings="drawings")
    survey_folder(tmp_path / "drawings", 64, [])
    warned = [record.getMessage() for record in caplog.records if "nothing in it is stroke" in record.getMessage()]
    assert len(warned) == 2 and all(line.count("3.png") == 1 for line in warned)
