"""Guard rails: faults of image sets are detected and named, and skipped files are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.checks import guard, matched, small_sample_warning
from eval.images import ImageSet, pixel_hash
from eval.scan import survey
from ragaf_exp.core.errors import UserError


def pictures(count: int, seed: int = 0, side: int = 16) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8))


def saved(folder: Path, images: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    return folder


def cut(path: Path, keep: int = 60) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def refused(*says: str, **sets) -> None:
    with pytest.raises(UserError) as refusal:
        guard(**sets)
    line = str(refusal.value)
    assert "\n" not in line and all(text in line for text in says), line


def test_good_sets_pass_without_a_warning(tmp_path):
    images = ImageSet.folder(saved(tmp_path / "images", pictures(6)))
    reference = ImageSet.arrays(pictures(5, seed=1), name="truth")
    checked = guard(images, reference, [pixel_hash(p) for p in pictures(5, seed=2)])
    assert checked.warnings == []
    assert checked.images.keys == images.keys and checked.reference.keys == reference.keys
    assert checked.counts["images"] == {"set": str(tmp_path / "images"), "found": 6, "used": 6, "skipped": 0,
                                      "skipped_keys": [], "other_files": 0, "constant": 0, "repeated": 0}  # fmt: skip
    assert checked.counts["reference"]["used"] == 5
    alone = guard(images)
    assert alone.reference is None and alone.counts.keys() == {"images"}


def test_truncated_files_stop_it_and_are_named(tmp_path):
    folder = saved(tmp_path / "images", pictures(6))
    cut(folder / "02.png")
    refused("02.png: is damaged or cut short", images=ImageSet.folder(folder))
    (folder / "04.png").write_bytes(b"")
    refused("02.png", "2 such files in all", images=ImageSet.folder(folder))
    refused("02.png", images=ImageSet.arrays(pictures(4)), reference=ImageSet.folder(folder))


def test_skipped_files_are_counted(tmp_path):
    folder = saved(tmp_path / "images", pictures(6))
    cut(folder / "02.png")
    (folder / "04.png").write_text("no picture")
    (folder / "captions.csv").write_text("")
    checked = guard(ImageSet.folder(folder), skip_damaged=True)
    assert checked.images.keys == ("00", "01", "03", "05")
    counts = checked.counts["images"]
    assert (counts["found"], counts["used"], counts["skipped"], counts["other_files"]) == (6, 4, 2, 1)
    assert counts["skipped_keys"] == ["02", "04"]
    assert len(checked.warnings) == 1 and "2 damaged images are skipped (02, 04)" in checked.warnings[0]
    for i in (0, 1, 3):
        cut(folder / f"{i:02d}.png")
    with pytest.raises(UserError, match="1 usable images of 6"):
        guard(ImageSet.folder(folder), skip_damaged=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_file_of_floats_with_nan_is_damaged(tmp_path, value):
    folder = saved(tmp_path / "images", pictures(3))
    values = pictures(1)[0][..., 0].astype(np.float32) / 255
    Image.fromarray(values).save(folder / "floats.tif")
    assert guard(ImageSet.folder(folder)).warnings == [], "its range is plain"
    values[3, 4] = value
    Image.fromarray(values).save(folder / "floats.tif")
    refused("floats.tif: is damaged", "1 values are NaN or infinite", images=ImageSet.folder(folder))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p / 127.5 - 1, "float64 with values from -1"),
        (lambda p: (p / 255).astype(np.float32), "float32 with values from 0 to 1"),
        (lambda p: np.where(p > 250, np.nan, p), "NaN"),
        (lambda p: p[..., 0], "has shape"),
        (lambda p: p.transpose(2, 0, 1), "has shape"),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_wrong_range_dtype_or_layout_is_never_skipped(change, says, skip):
    images = [*pictures(3), change(pictures(4)[3])]
    refused("set: 000003", says, images=ImageSet.arrays(images, name="set"), skip_damaged=skip)


def test_sets_too_small_or_without_content():
    flat = [np.full((8, 8, 3), value, np.uint8) for value in (10, 20, 30)]
    refused("set: 1 usable images of 1", images=ImageSet.arrays(pictures(1), name="set"))
    refused("0 usable images of 0", images=ImageSet.arrays([]))
    refused("set: all 3 images are of one colour", images=ImageSet.arrays(flat, name="set"))
    refused("all 4 images are equal", images=ImageSet.arrays(pictures(1) * 4))


def test_unit_range_saved_as_bytes_is_an_error():
    refused("no value is above 1", "255", images=ImageSet.arrays([p // 128 for p in pictures(4)]))


def test_unit_range_taken_for_plus_minus_one_is_a_warning():
    """The reference implementation's mistake: [0, 1] through (x + 1) / 2."""
    washed = [((p / 255 + 1) / 2 * 255).astype(np.uint8) for p in pictures(4)]
    (warning,) = guard(ImageSet.arrays(washed, name="set")).warnings
    assert warning.startswith("set: no value is below 127") and "[-1, 1]" in warning


def test_negative_half_cut_off_is_a_warning():
    """[-1, 1] clipped to [0, 1]: half of all values are 0, and none of the reference's."""
    clipped = [(np.clip(p / 127.5 - 1, 0, 1) * 255).astype(np.uint8) for p in pictures(4)]
    (warning,) = guard(ImageSet.arrays(clipped), ImageSet.arrays(pictures(4, seed=1))).warnings
    assert "50% of all values are 0" in warning and "0%" in warning
    assert guard(ImageSet.arrays(clipped)).warnings == [], "drawings on black have as much of it"
    assert guard(ImageSet.arrays(clipped), ImageSet.arrays([p // 2 * (p > 120) for p in pictures(4, 1)])).warnings == []


def test_constant_images_are_named():
    images = [*pictures(3), np.full((16, 16, 3), (1, 2, 3), np.uint8)]
    checked = guard(ImageSet.arrays(images, ["a", "b", "c", "d"]))
    assert checked.counts["images"]["constant"] == 1 and "1 images are of one colour (d)" in checked.warnings[0]


def test_repeated_images_are_named_whatever_their_file(tmp_path):
    folder = saved(tmp_path / "images", pictures(6))
    Image.fromarray(pictures(6)[1]).save(folder / "again.bmp")
    Image.fromarray(pictures(6)[1]).save(folder / "more.png", compress_level=1)
    checked = guard(ImageSet.folder(folder))
    assert checked.counts["images"]["repeated"] == 2 and checked.counts["images"]["used"] == 8
    assert "2 images equal an earlier one of the set (again, more)" in checked.warnings[0]


def test_images_in_both_sets_are_named():
    images, reference = pictures(6), [*pictures(3, seed=1), *pictures(6)[:5]]
    (warning,) = guard(ImageSet.arrays(images), ImageSet.arrays(reference, name="truth")).warnings
    assert "5 of 6 images are in the reference truth too" in warning and "000000, 000001, 000002 and 2 more" in warning


def test_a_reference_that_was_trained_on_is_named():
    training = [pixel_hash(p) for p in pictures(9)]
    reference = ImageSet.arrays([*pictures(2, seed=1), *pictures(9)[7:]], name="truth")
    (warning,) = guard(ImageSet.arrays(pictures(4, seed=2)), reference, training).warnings
    assert "truth: 2 of 4 images are in the training set (000002, 000003)" in warning
    assert guard(ImageSet.arrays(pictures(4, seed=2)), reference, iter(training[:7])).warnings == []


def test_mixed_and_different_sizes_are_named():
    mixed = [*pictures(4), *pictures(2, side=24), pictures(1, side=8)[0][:, :4]]
    (warning,) = guard(ImageSet.arrays(mixed)).warnings
    assert "images of 3 sizes (16x16, 24x24, 4x8)" in warning
    (warning,) = guard(ImageSet.arrays(pictures(4)), ImageSet.arrays(pictures(4, side=24, seed=1))).warnings
    assert "images are 16x16, the reference's 24x24" in warning


def test_few_images_for_a_distance():
    assert small_sample_warning(2048, 5000, 512) is None and small_sample_warning(10_000, 10_000, 2048) is None
    for counts in ((2047, 9000), (9000, 2047)):
        assert "2,047 images" in small_sample_warning(*counts, 512) and "singular" not in small_sample_warning(*counts, 512)
    assert "fewer than 2,049 leave the covariance of 2,048 features singular" in small_sample_warning(2048, 2048, 2048)
    assert "fewer than 513" in small_sample_warning(512, 4000, 512) and "singular" not in small_sample_warning(
        513, 4000, 512
    )


def test_pairs_go_by_name(tmp_path):
    images = ImageSet.folder(saved(tmp_path / "images", pictures(5)))
    other = saved(tmp_path / "other", pictures(5, seed=1))
    (other / "01.png").rename(other / "99.png")
    (other / "03.png").rename(other / "03.bmp")
    first, second, left = matched(images, ImageSet.folder(other))
    assert first.keys == second.keys == ("00", "02", "03", "04")
    np.testing.assert_array_equal(second[2], pictures(5, seed=1)[3])
    assert left == {"pairs": 4, "unpaired": 1, "unpaired_reference": 1}


def test_pairs_of_other_names_or_sizes_are_refused():
    images = ImageSet.arrays(pictures(3), list("abc"), "images")
    with pytest.raises(UserError, match="no two files of one name .such as a and x"):
        matched(images, ImageSet.arrays(pictures(2), list("xy")))
    wrong = ImageSet.arrays([pictures(1)[0], pictures(1)[0][:, :9]], list("cb"), "truth")
    with pytest.raises(UserError, match="b: 16x16 in images, 9x16 in truth"):
        matched(images, wrong)


def test_one_pass_looks_at_each_picture_once(capsys):
    reads: list[int] = []
    images = ImageSet("set", [str(i) for i in range(20)], lambda i: reads.append(i) or pictures(20)[i], str)
    stats = survey(images)
    assert sorted(reads) == list(range(20)) and len(stats.pictures) == 20
    assert "checking images" in capsys.readouterr().err


def test_real_photos_pass(shared_data):
    photos, reference = (ImageSet.folder(shared_data / name) for name in ("sketchy/photo", "coco_mini/val2017"))
    checked = guard(photos, reference)
    assert checked.counts["images"]["used"] == 180 and checked.counts["reference"]["used"] == 79
    assert not [text for text in checked.warnings if "size" not in text and "images are" not in text], checked.warnings
