"""Reading pictures of every kind, a drawing's polarity, bringing both to a square; and every bad file."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.images import check_header, fit_drawing, fit_image, read_drawing, read_image

INK = np.zeros((40, 60), bool)
INK[10:12, 5:50] = INK[10:30, 20:22] = True
PAPER = np.where(INK, 0, 255).astype(np.uint8)
RGB = np.repeat(PAPER[..., None], 3, 2)
BLACK_INK = np.dstack([np.zeros_like(RGB), 255 - PAPER])
WHITE_INK = np.dstack([np.full_like(RGB, 255), 255 - PAPER])


def pictures() -> dict[str, Image.Image]:
    picture = Image.fromarray
    return {
        "rgb.png": picture(RGB),
        "rgb.jpg": picture(RGB),
        "rgb.webp": picture(RGB),
        "rgb.bmp": picture(RGB),
        "rgb.tif": picture(RGB),
        "grey.png": picture(PAPER),
        "grey.gif": picture(PAPER),
        "inverse.png": picture(255 - PAPER),
        "bits.png": picture(PAPER).convert("1"),
        "palette.png": picture(RGB).convert("P"),
        "palette_alpha.png": picture(BLACK_INK).quantize(16),
        "grey_alpha.png": picture(BLACK_INK).convert("LA"),
        "black_on_nothing.png": picture(BLACK_INK),
        "white_on_nothing.png": picture(WHITE_INK),
        "cmyk.jpg": picture(RGB).convert("CMYK"),
        "cmyk.tif": picture(RGB).convert("CMYK"),
        "deep.png": picture(PAPER.astype(np.uint16) * 257),
        "deep.tif": picture(PAPER.astype(np.uint16) * 257),
        "float.tif": picture(PAPER.astype(np.float32) / 255),
        "int.tif": picture(PAPER.astype(np.int32) * 1000),
        "lab.tif": picture(RGB).convert("LAB"),
    }


@pytest.mark.parametrize("name", list(pictures()))
def test_every_kind_of_picture_is_read(name: str, tmp_path: Path) -> None:
    pictures()[name].save(tmp_path / name)
    image, drawing = read_image(tmp_path / name), read_drawing(tmp_path / name)
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8
    if name not in ("inverse.png", "white_on_nothing.png"):
        assert np.abs(image.astype(int) - RGB).mean() < 3
    assert drawing.dtype == np.float32 and drawing.min() >= 0 and drawing.max() <= 1
    assert np.array_equal(drawing > 0.5, INK)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_colour_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"deep.{suffix}"
    cv2.imwrite(str(path), RGB.astype(np.uint16) * 257)
    assert np.array_equal(read_image(path), RGB)


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (60, 40, 3)


def test_a_cut_out_object_is_no_ink(tmp_path: Path) -> None:
    rgba = np.zeros((60, 60, 4), np.uint8)
    rgba[15:45, 15:45] = 255
    rgba[25:27, 20:40, :3] = 0
    Image.fromarray(rgba).save(tmp_path / "cut.png")
    assert np.array_equal(read_drawing(tmp_path / "cut.png") > 0.5, (rgba[..., 3] > 0) & (rgba[..., 0] == 0))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), dark=st.integers(0, 80), light=st.integers(170, 255))
def test_polarity_is_detected(seed: int, dark: int, light: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    ink = np.zeros(rng.integers(30, 90, 2), np.uint8)
    for _ in range(rng.integers(1, 8)):
        ends = rng.integers(0, ink.shape[::-1], (2, 2)).tolist()
        cv2.line(ink, ends[0], ends[1], 1, int(rng.integers(1, 3)))
    if ink.mean() > 0.4:
        return
    path = tmp_path_factory.mktemp("polarity") / "drawing.png"
    for ground, stroke, polarity in ((light, dark, "dark"), (dark, light, "light")):
        noisy = np.where(ink, stroke, ground) + rng.integers(-2, 3, ink.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path)
        for way in ("auto", polarity):
            assert np.array_equal(read_drawing(path, way) > 0.5, ink > 0)


def test_a_silhouette_on_a_border_counts_by_its_border(tmp_path: Path) -> None:
    picture = np.full((60, 60), 255, np.uint8)
    picture[7:53, 7:53] = 0
    Image.fromarray(picture).save(tmp_path / "solid.png")
    assert np.array_equal(read_drawing(tmp_path / "solid.png") > 0.5, picture == 0)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_drawing_has_no_strokes(level: int, tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), level, np.uint8)).save(tmp_path / "blank.png")
    for polarity in ("auto", "dark", "light"):
        assert not read_drawing(tmp_path / "blank.png", polarity).any()


def test_unknown_polarity_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="polarity='grey'"):
        read_drawing(tmp_path / "x.png", "grey")


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.sampled_from([16, 64]),
    fit=st.sampled_from(["crop", "pad"]),
)
def test_any_size_becomes_a_square(height: int, width: int, size: int, fit: str) -> None:
    rng = np.random.default_rng(height * 1000 + width)
    image = fit_image(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), size, fit)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    drawing = fit_drawing(rng.random((height, width), dtype=np.float32), size, fit)
    assert drawing.shape == (size, size) and drawing.dtype == np.float32
    assert drawing.min() >= 0 and drawing.max() <= 1


@pytest.mark.parametrize("side", [128, 500, 1000, 3000])
@pytest.mark.parametrize("width", [1, 3])
def test_thin_strokes_outlive_shrinking(side: int, width: int) -> None:
    drawing = np.zeros((side, side), np.float32)
    cv2.circle(drawing, (side // 2, side // 2), side // 3, 1.0, width)
    small = fit_drawing(drawing, 64)
    centre, radius = (side // 2 + 0.5) / side * 64, side // 3 / side * 64
    y, x = np.mgrid[:64, :64] + 0.5 - centre
    away = np.abs(np.hypot(x, y) - radius)
    assert cv2.dilate(small, np.ones((3, 3)))[away < 0.5].min() > 0.4
    assert small[away > 2.5].max() == 0
    assert 0.8 < small.sum() / (2 * np.pi * radius) < 3  # its width at 64 x 64


def test_tiny_drawings_grow_crisp_and_connected() -> None:
    drawing = np.zeros((12, 12), np.float32)
    cv2.circle(drawing, (6, 6), 4, 1.0, 1)
    large = fit_drawing(drawing, 96)
    count, _ = cv2.connectedComponents((large > 0.5).astype(np.uint8))
    assert count == 2
    assert ((large > 0.1) & (large < 0.9)).mean() < 0.12


def test_same_size_is_left_alone() -> None:
    drawing = np.zeros((64, 64), np.float32)
    drawing[10] = 1
    assert np.array_equal(fit_drawing(drawing, 64), drawing)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(fit_image(image, 64), image)


def test_padding_is_ground() -> None:
    image = np.full((10, 40, 3), (10, 200, 30), np.uint8)
    assert (fit_image(image, 40, "pad") == (10, 200, 30)).all()
    assert (fit_image(image, 40, "pad", ground="white")[0] == 255).all()
    assert not fit_drawing(np.ones((10, 40), np.float32), 40)[0].any()
    with pytest.raises(UserError, match="data.fit=squeeze: must be one of crop, pad"):
        fit_image(image, 40, "squeeze")


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that can't be read, each with its message."""
    cases = {
        "missing": (folder / "none.png", "no such file; check the path"),
        "inside a file": (folder / "text.png" / "x.png", "no such file; check the path"),
        "directory": (folder, "is a directory"),
        "device": (Path(os.devnull), "is a device or pipe"),
    }
    contents = {
        "empty": (b"", "is empty (0 bytes)"),
        "text": (b"no picture\n", "is not an image"),
        "no pixels": (png(0, 5), "is not an image"),
        "bomb": (png(9000, 9000), "is larger than the limit of 64 megapixels (9000 x 9000 pixels)"),
        "huge bomb": (png(60000, 60000), "is larger than the limit of 64 megapixels"),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
    }
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    for suffix in ("png", "jpg", "webp", "bmp", "tif"):
        noise.save(folder / f"whole.{suffix}", **({"compression": "tiff_adobe_deflate"} if suffix == "tif" else {}))
        whole = (folder / f"whole.{suffix}").read_bytes()
        # a TIFF's directory may lie at its end
        what = "is not an image" if suffix == "tif" else "is damaged or cut short"
        contents[f"cut {suffix}"] = (whole[: len(whole) * 2 // 3], what)
        if suffix == "tif":
            middle = bytearray(whole)
            middle[2000:2100] = bytes(100)
            contents["damaged tif"] = (bytes(middle), "is damaged or cut short")
    for i, (name, (data, what)) in enumerate(contents.items()):
        path = folder / ("text.png" if name == "text" else f"bad{i}.png")
        path.write_bytes(data)
        cases[name] = (path, what)
    return cases


@pytest.mark.filterwarnings("ignore::UserWarning")  # pytest undoes the module's own filter
def test_every_bad_file_is_named_in_one_line(tmp_path: Path) -> None:
    for name, (path, what) in bad_files(tmp_path).items():
        for read in (read_image, read_drawing):
            with pytest.raises(UserError) as caught:
                read(path)
            message = str(caught.value)
            assert message.startswith(f"{path}: {what}") and "\n" not in message and ";" in message, (
                name,
                message,
            )


def test_headers_are_checked_without_decoding(tmp_path: Path) -> None:
    cases = bad_files(tmp_path)
    assert check_header(cases["cut png"][0]) == (70, 50)
    with pytest.raises(UserError, match="64 megapixels"):
        check_header(cases["bomb"][0])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "locked.png")
    (tmp_path / "locked.png").chmod(0)
    with pytest.raises(UserError, match="may not be read"):
        read_image(tmp_path / "locked.png")


def test_a_refused_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "locked.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(UserError, match="may not be read"):
        read_image(tmp_path / "locked.png")


def test_decoders_write_nothing_to_stderr(tmp_path: Path) -> None:
    paths = [str(path) for path, _ in bad_files(tmp_path).values()]
    code = (
        "import sys\nfrom ragaf_exp.data.images import read_image\nfrom ragaf_exp.core.errors import UserError\n"
        "for path in sys.argv[1:]:\n    try:\n        read_image(path)\n    except UserError:\n        pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), suffix=st.sampled_from(["png", "jpg", "webp", "bmp", "tif", "gif"]))
def test_damage_never_ends_in_a_traceback(seed: int, suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 20)):
        data[rng.integers(len(data))] = rng.integers(256)
    path.write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)])
    try:
        assert read_image(path).dtype == np.uint8
        assert read_drawing(path).dtype == np.float32
    except UserError as error:
        assert "\n" not in str(error)


def test_real_drawings_keep_their_strokes(shared_data: Path) -> None:
    paths = (
        sorted((shared_data / "scribbles").glob("*.png")) + sorted((shared_data / "sketchy/sketch").rglob("*.png"))[::40]
    )
    for path in paths:
        drawing = fit_drawing(read_drawing(path), 64)
        assert 0.01 < drawing.mean() < 0.45 and drawing.max() == 1, path
