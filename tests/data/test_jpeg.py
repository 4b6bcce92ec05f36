"""JPEG files at a fraction of their size: those that go past Pillow show the same picture and have the same faults."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.decode import decode, orientation
from ragaf_exp.data.jpeg import jpeg_content, plain_size

HEIGHT, WIDTH = 90, 130
ORIENTATION = 0x0112


def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    return Image.fromarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 12), None, 0, 255, cv2.NORM_MINMAX))


def packed(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(value: int) -> bytes:
    exif = picture().getexif()
    exif[ORIENTATION] = value
    return packed(picture(), exif=exif)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PLAIN = {
    "colour": packed(picture(), quality=90),
    "grey": packed(picture().convert("L")),
    "progressive": packed(picture(), progressive=True),
    "without subsampling": packed(picture(), subsampling=0, optimize=True),
    "RGB": packed(picture(), keep_rgb=True),
    "profile": packed(picture(), icc_profile=PROFILE),
    "comment": packed(picture(), comment=b"a photo"),
    "restarts": cv2.imencode(".jpg", np.asarray(picture()), [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes(),
}
OTHER = {
    "CMYK": packed(picture().convert("CMYK")),
    "upright": turned(1),
    "turned": turned(6),
    "mirrored": turned(5),
    "XMP": packed(picture(), xmp=b'<x tiff:Orientation="6"/>'),
    "several": packed(picture(), "MPO", save_all=True, append_images=[picture()]),
}


@pytest.mark.parametrize("name", [*PLAIN, *OTHER])
@pytest.mark.parametrize("side", [20, 40, 80])
def test_a_fraction_shows_the_same_picture(tmp_path, name, side):
    path, content = tmp_path / "a.jpg", (PLAIN | OTHER)[name]
    path.write_bytes(content)
    assert (plain_size(content) == (WIDTH, HEIGHT)) == (name in PLAIN), "and only plain files go past Pillow"
    whole, pixels = decode(path)[0], decode(path, side=side)[0]
    if name in PLAIN:
        assert round(whole.shape[0] / pixels.shape[0]) == HEIGHT // side, "which is a power of two here"
    assert np.array_equal(pixels, decode(path, content, side)[0]), "with its bytes as from its path"
    height, width = pixels.shape[:2]
    expected = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    assert np.abs(expected.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("name", [*PLAIN, *OTHER])
def test_the_orientation_is_that_of_the_file(tmp_path, name):
    path, content = tmp_path / "a.jpg", (PLAIN | OTHER)[name]
    path.write_bytes(content)
    assert orientation(path, content) == orientation(path) == {"turned": 6, "mirrored": 5, "XMP": 6}.get(name, 1)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.9])
def test_a_file_cut_short_has_the_same_fault_at_a_fraction(tmp_path, name, share):
    path = tmp_path / "a.jpg"
    path.write_bytes(PLAIN[name][: int(share * len(PLAIN[name]))])
    with pytest.raises(UserError) as whole:
        decode(path)
    with pytest.raises(UserError) as fraction:
        decode(path, side=20)
    assert str(fraction.value) == str(whole.value)


def test_what_is_no_readable_jpeg_is_left_to_pillow(tmp_path):
    (tmp_path / "a.png").write_bytes(packed(picture(), "PNG"))
    (tmp_path / "folder").mkdir()
    assert all(jpeg_content(tmp_path / name) is None for name in ("a.png", "folder", "missing.jpg"))
    with pytest.raises(UserError, match="no such file"):
        decode(tmp_path / "missing.jpg", side=20)
    assert np.array_equal(decode(tmp_path / "a.png", side=20)[0], np.asarray(picture()))


@pytest.mark.parametrize("bad", [b"\xff\xd8", b"\xff\xd8\xff\xc0\0\x11\x08", b"\xff\xd8" + bytes(30)])
def test_a_damaged_header_is_not_plain(bad):
    assert plain_size(bad) is None


def test_a_jpeg_beyond_the_limit_is_refused(tmp_path):
    content = bytearray(PLAIN["colour"])
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = b"\xff\xff\xff\xff"  # height and width
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match="larger than the limit of 64 megapixels"):
        decode(tmp_path / "a.jpg", side=20)
