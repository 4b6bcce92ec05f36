"""The contact sheet: rows, columns, settings, what is left out and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from extractor_weights import NEURAL, save_random
from PIL import Image, ImageDraw

from ragaf_exp.commands.extractor_sheet import PHOTOS, main, options, read_pictures
from ragaf_exp.sketch import Canny, Drawn
from ragaf_exp.sketch.loading import library

GAP = 6  # px between cells


@pytest.fixture
def pictures(tmp_path):
    """a.png with a drawing of its name, b.png without, and a drawing c.png without an image."""
    (tmp_path / "lines").mkdir()
    for name in ("a", "b", "lines/a", "lines/c"):
        canvas = Image.new("RGB", (60, 40), "white")
        fill = None if "/" in name else (200, 30, 30)
        ImageDraw.Draw(canvas).ellipse((15, 5, 45, 35), fill=fill, outline=(0, 0, 0), width=2)
        canvas.save(tmp_path / f"{name}.png")
    return tmp_path


def cells(path, rows: int, columns: int, size: int) -> list[list[np.ndarray]]:
    """The sheet's cells, from below."""
    picture = np.asarray(Image.open(path))
    assert picture.shape[1] == GAP + columns * (size + GAP)
    top = picture.shape[0] - rows * (size + GAP)
    at = [[(top + i * (size + GAP), GAP + j * (size + GAP)) for j in range(columns)] for i in range(rows)]
    return [[picture[y : y + size, x : x + size] for y, x in row] for row in at]


def test_rows_are_pictures_and_columns_extractors(pictures, cli):
    out = pictures / "deep" / "sheet.png"
    images, drawings = ([f"{pictures}/{n}.png" for n in names] for names in (("a", "b"), ("lines/a", "lines/c")))
    words = [f"images=[{','.join(images)}]", f"drawings=[{','.join(drawings)}]", "extractors=[canny,drawn]", "size=48"]
    status, output, _ = cli(main, f"out={out}", *words)
    assert status == 0 and "3 pictures, 2 extractors (canny, drawn)" in output
    result = cells(out, 3, 3, 48)
    rows = read_pictures(images, drawings, 48)
    assert [p.drawing is not None for p in rows] == [True, False, True]
    for row, picture in zip(result, rows, strict=True):
        np.testing.assert_array_equal(row[0], picture.image)
        np.testing.assert_array_equal(row[1][..., 0] < 128, Canny()(picture.image, None) > 0.5)
    assert (result[1][2] == 255).all(), "no drawing, no cell"
    np.testing.assert_array_equal(result[0][2][..., 0] < 128, Drawn()(None, rows[0].drawing) > 0.5)


@pytest.mark.long
def test_every_option_is_on_it_by_default_with_scikit_images_photos(tmp_path, cli, monkeypatch):
    """Extractors that can't run are left out and reported."""

    def unreachable(*_, **__):
        raise ConnectionError("no route to the hub")

    paths = {name: save_random(name, tmp_path) for name in ("teed", "pidinet")}
    for module in ("hed", "lineart"):
        monkeypatch.setattr(library(module), "hf_hub_download", unreachable)
    weights = [f"{name}.weights={path}" for name, path in paths.items()]
    status, output, errors = cli(main, f"out={tmp_path}/sheet.png", "size=64", *weights)
    left = ["drawn", "hed", "lineart"]
    assert status == 0 and "4 pictures" in output
    assert f"({', '.join(name for name in options() if name not in left)})" in output
    for name, reason in zip(left, ("no drawings", "ControlNetHED.pth", "sk_model.pth"), strict=True):
        (line,) = [line for line in errors.splitlines() if f"{name}: left out: " in line]
        assert reason in line
    assert set(NEURAL) < set(options())


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_come_with_scikit_image(name):
    (picture,) = read_pictures([name], [], 32)
    assert picture.image.shape == (32, 32, 3) and picture.image.std() > 20


def test_settings_reach_their_extractor(pictures, cli):
    words = [f"images=[{pictures}/a.png]", "extractors=[canny,drawn]", "size=48", f"drawings=[{pictures}/lines/a.png]"]
    status, *_ = cli(main, f"out={pictures}/one.png", *words, "canny.high=0.9", "drawn.thin=true", "note=what it is")
    assert status == 0
    plain, *_ = cli(main, f"out={pictures}/two.png", *words)
    deferred = np.asarray(Image.open(pictures / "one.png"))
    without = np.asarray(Image.open(pictures / "two.png"))
    foot = deferred[without.shape[0] :]
    assert plain == 0 and len(foot) > 10 and (foot < 128).any(), "the note"
    assert (deferred[: len(without)] != without).any()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["images=[a.png]"], ("out: missing",)),
        (["out=x.png", "size=8"], ("size=8", "16 to 2048")),
        (["out=x.png", "size=big"], ("size=big", "int")),
        (["out=x.png", "extractors=[cany]"], ("extractors=cany", "canny", "pidinet")),
        (["out=x.png", "extractors=[canny]", "dog.sigma=2"], ("dog.sigma=2", "canny")),
        (["out=x.png", "extractors=[canny]", "canny.sigma=-1"], ("sketch.sigma=-1",)),
        (["out=x.png", "extractors=[canny]", "canny.sgima=1"], ("sketch.sgima", "sigma")),
        (["out=x.png", "extractors=[canny]", "images=[nowhere.png]"], ("nowhere.png", "no such file")),
        (["out=x.png", "pictures=[a.png]"], ("pictures", "images=")),
    ],
)
def test_bad_arguments_are_one_line(words, says, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(main, *words, says=says)
    assert not list(tmp_path.iterdir())
