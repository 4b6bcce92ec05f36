"""Image sets: listing of a folder, refusals, and decoding of pictures one at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eval import images as images_module
from eval.images import AHEAD, WORKERS, ImageSet, WrongPicture, ahead, check_picture, pixel_hash
from ragaf_exp.core.errors import UserError


def picture(seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """b.png, a/c.png and d.JPG, and files that are no pictures."""
    root = tmp_path / "set"
    for name, seed in {"b.png": 0, "a/c.png": 1, ".hidden/x.png": 2, ".y.png": 3}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed)).save(root / name)
    Image.fromarray(picture(4)).save(root / "d.JPG", "JPEG")
    (root / "captions.json").write_text("{}")
    return root


def test_a_folder_is_read_sorted_and_recursively(folder):
    images = ImageSet.folder(folder)
    assert images.keys == ("a/c", "b", "d") and len(images) == 3
    assert images.others == ("captions.json",) and images.name == str(folder)
    np.testing.assert_array_equal(images[1], picture(0))
    np.testing.assert_array_equal(images[-3], picture(1))
    with pytest.raises(IndexError):
        images[3]


def test_every_picture_can_be_fitted_to_a_size(folder):
    Image.fromarray(picture(5, 20)[:10]).save(folder / "wide.png")
    images = ImageSet.folder(folder, size=4)
    assert {image.shape for image in images} == {(4, 4, 3)}
    with pytest.raises(UserError, match="size=0"):
        ImageSet.folder(folder, size=0)


def test_bad_folders_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        ImageSet.folder(tmp_path / "missing")
    with pytest.raises(UserError, match="is a file"):
        ImageSet.folder(folder / "b.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        ImageSet.folder(tmp_path / "empty")
    Image.fromarray(picture(6)).save(folder / "b.bmp")
    with pytest.raises(UserError, match=r"b\.bmp and b\.png differ only in their suffix"):
        ImageSet.folder(folder)


def test_a_truncated_file_is_named_when_it_is_read(folder):
    path = folder / "b.png"
    path.write_bytes(path.read_bytes()[:-40])
    images = ImageSet.folder(folder)
    assert images[0].shape == (8, 8, 3)
    with pytest.raises(UserError, match=r"b\.png: is damaged or cut short"):
        images[1]


def test_the_checksum_depends_on_contents_order_and_size(folder):
    first = ImageSet.folder(folder).checksum
    assert first == ImageSet.folder(folder).checksum and len(first) == 64
    assert first != ImageSet.folder(folder, size=8).checksum
    assert first != ImageSet.folder(folder)[1:].checksum
    (folder / "b.png").rename(folder / "bb.png")
    assert ImageSet.folder(folder).checksum == first, "names alone change nothing"
    (folder / "bb.png").rename(folder / "e.png")
    assert ImageSet.folder(folder).checksum != first, "the order does"
    Image.fromarray(picture(9)).save(folder / "e.png")
    assert ImageSet.folder(folder).checksum != first


def test_a_file_that_went_away_is_named(folder):
    images = ImageSet.folder(folder)
    (folder / "b.png").unlink()
    with pytest.raises(UserError, match=r"b\.png"):
        _ = images.checksum


def test_arrays():
    pictures = [picture(i, 4 + i) for i in range(5)]
    images = ImageSet.arrays(pictures)
    assert images.keys[3] == "000003" and images.others == ()
    np.testing.assert_array_equal(images[3], pictures[3])
    assert images.checksum == ImageSet.arrays([p.copy() for p in pictures], list("abcde")).checksum
    pictures[2] = pictures[2] ^ 1
    assert images.checksum != ImageSet.arrays(pictures).checksum
    for keys, says in (("ab", "2 keys for 5 images"), ("abcda", "occurs twice")):
        with pytest.raises(UserError, match=says):
            ImageSet.arrays(pictures, list(keys))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (np.linspace(-1, 1, 48).reshape(4, 4, 3), "float64 with values from -1 to 1; convert it to uint8"),
        (np.ones((4, 4, 3), np.float32), "float32 with values from 1 to 1"),
        (np.full((4, 4, 3), np.nan, np.float32), "48 values NaN or infinite"),
        (np.ones((4, 4, 3), np.int64), "int64"),
        (np.ones((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.ones((3, 4, 4), np.uint8), r"shape \(3, 4, 4\)"),
        (np.ones((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.ones((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.ones((4, 4, 3), bool), "bool"),
        ("picture.png", "is a str"),
    ],
)
def test_what_is_no_uint8_rgb_is_refused_not_guessed(wrong, says):
    images = ImageSet.arrays([picture(0), wrong], ["good", "bad"], name="samples")
    assert images[0].shape == (8, 8, 3)
    for use in (lambda: images[1], lambda: images.checksum, lambda: check_picture(wrong, "samples: bad")):
        with pytest.raises(WrongPicture, match=f"samples: bad: .*{says}") as refusal:
            use()
        assert "\n" not in str(refusal.value)


def test_subsets_and_slices(folder):
    images = ImageSet.folder(folder)
    chosen = images.subset([2, 0])
    assert chosen.keys == ("d", "a/c") and chosen.others == images.others
    np.testing.assert_array_equal(chosen[1], picture(1))
    assert images[1:].keys == ("b", "d") and images[1:][:1].keys == ("b",)
    assert images.subset([0, 1, 2]).checksum == images.checksum != chosen.checksum
    with pytest.raises(IndexError):
        images.subset([3])


@settings(deadline=None, max_examples=30)
@given(count=st.integers(0, 70), size=st.integers(1, 20))
def test_batches_hold_every_picture_once_in_order(count, size):
    images = ImageSet.arrays([np.full((1, 1, 3), i, np.uint8) for i in range(count)])
    batches = list(images.batches(size))
    assert [int(p[0, 0, 0]) for batch in batches for p in batch] == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])


def test_batches_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        next(ImageSet.arrays([picture(0)]).batches(0))


def test_never_more_than_a_few_pictures_are_held():
    started: list[int] = []
    bound = AHEAD * WORKERS
    for done, _ in enumerate(ahead(started.append, range(500))):
        assert len(started) <= done + bound


def test_order_does_not_depend_on_how_long_each_picture_takes():
    def slow(i: int) -> int:
        time.sleep(0.002 * (i % 3 == 0))
        return i

    assert list(ahead(slow, range(60))) == list(range(60))


def test_an_error_ends_the_work_ahead():
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        if i == 5:
            raise UserError("five")
        return i

    before = threading.active_count()
    with pytest.raises(UserError, match="five"):
        list(ahead(work, range(10_000)))
    assert len(started) <= 6 + 2 * AHEAD * WORKERS and threading.active_count() == before


def test_pixels_have_one_hash_whatever_the_file(tmp_path):
    shown = picture(0)
    for suffix in ("png", "bmp", "tiff"):
        Image.fromarray(shown).save(tmp_path / f"{suffix}.{suffix}")
    assert {pixel_hash(image) for image in ImageSet.folder(tmp_path)} == {pixel_hash(shown)}
    assert pixel_hash(shown[:, ::-1]) == pixel_hash(np.ascontiguousarray(shown[:, ::-1])) != pixel_hash(shown)
    assert pixel_hash(shown.reshape(4, 16, 3)) != pixel_hash(shown), "the shape counts"


def test_real_photos(shared_data, monkeypatch):
    decoded: list[str] = []
    read = images_module.read_image
    monkeypatch.setattr(images_module, "read_image", lambda path: decoded.append(str(path)) or read(path))
    images = ImageSet.folder(shared_data / "sketchy" / "photo", size=64)
    assert len(images) == 180 and len(set(images.keys)) == 180 and len(images.checksum) == 64
    assert decoded == [], "listing and checksums decode nothing"
    assert {image.shape for image in images[:20]} == {(64, 64, 3)} and len(decoded) == 20
