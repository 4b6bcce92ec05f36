"""OpenMoji in the npm package's layout, as SVG and as PNG of 618 pixels; scenes with large objects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ragaf_exp.config.build import build
from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.sources.emoji import FORMS, filled_share, read_art
from ragaf_exp.data.sources.openmoji import OpenMoji
from ragaf_exp.data.sources.scenes import RADII, Scenes
from ragaf_exp.data.split import SPLITS

CODES = [f"1F{i:03X}" for i in range(40)]
SVG = ('<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">'
       '<rect x="12" y="{y}" width="48" height="40" fill="{fill}" stroke="#000" stroke-width="2"/></svg>')  # fmt: skip


def write_svg(root: Path) -> None:
    for kind, fill in (("color", "#ea5a47"), ("black", "none")):
        (root / kind / "svg").mkdir(parents=True)
        for i, code in enumerate(CODES):
            (root / kind / "svg" / f"{code}.svg").write_text(SVG.format(y=10 + i % 8, fill=fill))


def write_png(root: Path, folder: str, side: int) -> None:
    """PNG files of the same emoji.

    Args:
        root: The folder.
        folder: Below black/ and color/.
        side: Pixels.
    """
    unit = side / 72
    for kind, fill in (("color", (234, 90, 71, 255)), ("black", None)):
        (root / kind / folder).mkdir(parents=True, exist_ok=True)
        for i, code in enumerate(CODES):
            picture = Image.new("RGBA", (side, side))
            box = [11 * unit, (9 + i % 8) * unit, 61 * unit - 1, (51 + i % 8) * unit - 1]  # strokes are centred in SVG
            ImageDraw.Draw(picture).rectangle(box, fill=fill, outline=(0, 0, 0, 255), width=round(2 * unit))
            picture.save(root / kind / folder / f"{code}.png")


def write_list(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    common = {"group": "objects", "subgroups": "tool"}
    rows = [{"hexcode": code, "annotation": f"box {i}", **common} for i, code in enumerate(CODES)]
    path.write_text(json.dumps(rows))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    pytest.importorskip("resvg_py")
    write_svg(tmp_path)
    write_list(tmp_path / "data" / "openmoji.json")
    return tmp_path


@pytest.mark.parametrize("size", [32, 64, 200])
def test_the_npm_package_at_any_size(package: Path, size: int):
    source = OpenMoji(str(package), size=size, scenes=True, recolour=True, train=3, val=1, test=1, max_objects=2)
    items = [item for split in SPLITS for item in source.split(split)]
    assert len(items) == 5 and {item.image.shape for item in items} == {(size, size, 3)}
    for item in items:
        for thing in item.objects:
            assert (item.object_map == thing.label).sum() > 30
        assert item.drawing.max() > 0.8
    assert len(source.manifest().files) == 80 and all(name.endswith(".svg") for name in source.manifest().files)


def test_svg_and_png_show_the_same(package: Path):
    write_png(package, "618x618", 618)
    svg = read_art(str(package), CODES[3], FORMS["svg"], 144)
    png = read_art(str(package), CODES[3], FORMS["618"], 144)
    assert svg.rgb.shape == png.rgb.shape == (144, 144, 3)
    both = (svg.cover > 0.9) & (png.cover > 0.9)
    assert (svg.cover > 0.5).sum() == pytest.approx((png.cover > 0.5).sum(), rel=0.06)
    assert np.median(np.abs(svg.rgb[both].astype(int) - png.rgb[both]).max(-1)) <= 2
    assert filled_share(svg) == pytest.approx(filled_share(png), abs=0.05)


def test_the_form_that_suffices_is_chosen(package: Path):
    def folders(size: int, art: str = "auto") -> set[str]:
        return {str(Path(name).parent) for name in OpenMoji(str(package), size=size, art=art).manifest().files}

    assert folders(64) == {"color/svg", "black/svg"}
    write_png(package, "618x618", 618)
    assert folders(256) == {"color/618x618", "black/618x618"} and folders(256, "svg") == {"color/svg", "black/svg"}
    write_png(package, "", 72)
    assert folders(64) == {"color", "black"} and folders(256) == {"color/618x618", "black/618x618"}
    for art, says in (("72", "there are"), ("gif", "must be auto")):
        with pytest.raises(UserError, match=says):
            OpenMoji(str(package), art=art)


def test_the_small_layout_is_read_as_before(shared_data: Path):
    root = str(shared_data / "openmoji72")
    art, again = read_art(root, "1F34E"), read_art(root, "1F34E", FORMS["flat"], 0)
    assert art.rgb.shape == (72, 72, 3) and np.array_equal(art.rgb, again.rgb) and np.array_equal(art.line, again.line)


def diameters(source: Scenes, count: int) -> list[tuple[int, float]]:
    """Number of objects, and the longest side of each object relative to the picture."""
    sizes = []
    for index in range(count):
        item = source.split("train")[index]
        for thing in item.objects:
            rows, columns = np.nonzero(item.object_map == thing.label)
            sizes.append((len(item.objects), max(np.ptp(rows), np.ptp(columns)) / source.size))
    return sizes


def test_large_scenes_fill_the_page():
    source = build(compose_config(["data=scenes_large"]).data, "data")
    sizes = diameters(source, 150)
    single = [size for objects, size in sizes if objects == 1]
    assert max(single) > 0.75 and min(single) < 0.4 and len(single) > 20
    assert max(size for objects, size in sizes if objects > 1) > 0.35
    assert all(0.1 < size <= 0.96 for _, size in sizes)


def test_the_usual_scenes_are_unchanged():
    usual, given = Scenes(size=32, train=5), Scenes(size=32, train=5, scale=[])
    assert all(np.array_equal(a.image, b.image) for a, b in zip(usual.split("train"), given.split("train"), strict=True))
    assert usual._radii(3) == RADII[3]
    assert config_hash(compose_config(["+experiment=smoke"])) == "7fc9da57d7fd"


@pytest.mark.parametrize("scale", [[0.5], [0.5, 0.4], [0.2, 0.99]])
def test_other_scales_are_refused(scale: list[float]):
    with pytest.raises(UserError, match="data.scale"):
        Scenes(scale=scale)
