"""Every metric gets worse at every step of the damage that it claims to see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from eval import damage
from eval.damage import (
    DAMAGES,
    Damage,
    blurred,
    failures,
    measured,
    noised,
    recoloured,
    scores,
    shifted,
    table,
    worsens,
)
from eval.images import ImageSet
from ragaf_exp.data.sources.palette import delta_e, to_lab

WEIGHTS = "squeezenet11/squeezenet1_1_torchvision_fp16.pth"


@pytest.fixture(scope="module")
def photos() -> ImageSet:
    """Photos that scikit-image carries, in pieces."""
    whole = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    pieces = [p for picture in whole for p in (picture[:300, :300], picture[-300:, -300:])]
    return ImageSet.arrays([cv2.resize(p, (256, 256), interpolation=cv2.INTER_AREA) for p in pieces])


# --- monotone


@pytest.mark.parametrize("kind", DAMAGES)
def test_photos(photos, kind):
    values = scores(photos, DAMAGES[kind])
    assert not failures(values, DAMAGES[kind]), table(values, DAMAGES[kind])


@pytest.mark.parametrize("folder", ["sketchy/photo", "coco_mini/val2017"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_real_photos(shared_data, folder, kind):
    images = ImageSet.folder(shared_data / folder, 256)[::8][:12]
    values = scores(images, DAMAGES[kind])
    assert set(values) == set(measured()) - {"lpips", "fd_squeezenet"}
    assert not failures(values, DAMAGES[kind]), table(values, DAMAGES[kind])


@pytest.mark.parametrize("kind", DAMAGES)
def test_networks(photos, shared_data, kind):
    """LPIPS-squeeze and fd_squeezenet, with real weights."""
    weights = shared_data.parent / "weights" / WEIGHTS
    if not weights.is_file():
        pytest.skip(f"no SqueezeNet weights: {weights} is absent")
    pytest.importorskip("lpips")
    small = ImageSet.arrays([cv2.resize(p, (128, 128), interpolation=cv2.INTER_AREA) for p in photos])
    values = scores(small, DAMAGES[kind], **damage._networks(str(weights)))
    assert set(values) == set(measured())
    assert values["lpips"].shape == (5, len(small)) and values["fd_squeezenet"].shape == (5, 1)
    assert np.allclose(values["lpips"][0], 0, atol=1e-6) and values["fd_squeezenet"][0] < 1e-3
    affected = [name for name in ("lpips", "fd_squeezenet") if name in DAMAGES[kind].seen_by]
    assert affected and all(worsens(values[name], False) for name in affected), table(values, DAMAGES[kind])


def test_undamaged_is_perfect(photos):
    values = scores(photos[:2], DAMAGES["blur"])
    perfect = {"mse": 0.0, "ssim": 1.0, "sketch_f1": 1.0, "sketch_precision": 1.0, "sketch_recall": 1.0, "chamfer": 0.0}
    assert {name: values[name][0].tolist() for name in perfect} == {name: [value] * 2 for name, value in perfect.items()}
    np.testing.assert_allclose(values["edge_ms_ssim"][0], 1.0, atol=1e-6)


def test_a_metric_that_does_not_worsen_is_reported():
    """Rising, level and falling again are no worsening; a blind metric that claims to see is named."""
    assert worsens(np.array([[1.0, 3.0], [0.5, 3.0]]), True) and not worsens(np.array([[1.0], [1.0], [0.5]]), True)
    assert worsens(np.array([[0.0], [0.1], [0.2]]), False) and not worsens(np.array([[0.0], [0.2], [0.1]]), False)
    idle = Damage("nothing", (1, 2), lambda image, level, number: image, ("mse", "ssim"))
    values = scores(ImageSet.arrays([data.chelsea()[:64, :64]] * 2, ["a", "b"]), idle)
    assert list(failures(values, idle)) == ["mse", "ssim"]
    assert "| `mse` | 0.000 | 0.000 | 0.000 | yes | no | 0% |" in table(values, idle)
    assert "| `psnr` | 58.92 | 58.92 | 58.92 | no | no | 0% |" in table(values, idle)


# --- what the damages do


@pytest.fixture
def picture() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:200, 100:260])


@pytest.mark.parametrize("change", [blurred, noised, recoloured, shifted])
def test_a_picture_stays_a_picture(change: Callable, picture):
    before = picture.copy()
    for level in (1, 8):
        changed = change(picture, level, 3)
        assert changed.dtype == np.uint8 and changed.shape == picture.shape
        assert np.array_equal(changed, change(picture, level, 3))
    assert np.array_equal(picture, before)


def test_blur_keeps_the_mean(picture):
    assert abs(blurred(picture, 4).mean() - picture.mean()) < 1
    before, after = (np.abs(np.diff(p.astype(int), axis=1)).mean() for p in (picture, blurred(picture, 4)))
    assert after < 0.4 * before


def test_noise_has_its_deviation_and_is_the_same_at_every_level():
    grey = np.full((200, 200, 3), 128, np.uint8)
    small, large, other = (noised(grey, d, n).astype(int) - 128 for d, n in ((5, 0), (20, 0), (20, 1)))
    assert small.std() == pytest.approx(5, rel=0.02) and large.std() == pytest.approx(20, rel=0.02)
    alike, unlike = (np.corrcoef(one.ravel(), large.ravel())[0, 1] for one in (small, other))
    assert alike > 0.99 and abs(unlike) < 0.02


def test_colours_move_by_the_given_difference_at_equal_lightness():
    grey = np.full((8, 8, 3), 140, np.uint8)
    for difference in (5, 20, 40):
        after, before = to_lab(recoloured(grey, difference)), to_lab(grey)
        np.testing.assert_allclose(delta_e(after, before), difference, atol=0.6)
        np.testing.assert_allclose(after[..., 0], before[..., 0], atol=0.4)


def test_a_shift_moves_and_mirrors(picture):
    moved = shifted(picture, 5)
    assert np.array_equal(moved[:, 5:], picture[:, :-5]) and np.array_equal(moved[:, :5], picture[:, 4::-1])
    assert np.array_equal(shifted(picture, 0), picture)


# --- command line


@pytest.fixture
def folder(tmp_path) -> Path:
    for i, photo in enumerate((data.astronaut(), data.chelsea(), data.coffee())):
        Image.fromarray(photo).save(tmp_path / f"{i}.png")
    return tmp_path


def test_the_table_is_written(cli, folder):
    out = folder / "table.md"
    status, printed, _ = cli(damage.main, f"images={folder}", f"out={out}", "size=64")
    written = out.read_text()
    assert status == 0 and printed == written + "\n"
    assert written.startswith("3 pictures, 64x64.")
    for kind in DAMAGES.values():
        assert f"| {kind.what} | none | {' | '.join(f'{level:g}' for level in kind.levels)} |" in written
    rows = [line for line in written.splitlines() if line.startswith("| `ssim`")]
    assert len(rows) == len(DAMAGES) and all(row.startswith("| `ssim` | 1.000 | 0.") for row in rows)
    assert all("| yes | yes |" in row for row in rows[:3])  # a shift by 16 px is a quarter of so small a picture
    assert "lpips" not in written


def test_wrong_arguments_are_named(refused, folder, tmp_path):
    out = f"out={tmp_path / 'table.md'}"
    refused(damage.main, out, says=("images=: missing",))
    refused(damage.main, f"images={folder}", says=("out=: missing",))
    refused(damage.main, f"images={folder}", out, "size=16", says=("size=16: must be at least 32",))
    refused(damage.main, f"images={folder}", out, "items=1", says=("items=1: must be at least 2",))
    refused(damage.main, f"images={folder}", out, "kind=blur", says=("kind=blur: unknown argument",))
    refused(damage.main, f"images={folder / 'none'}", out, says=("none", "no such folder"))
    refused(damage.main, f"images={folder}", out, "squeezenet=none.pth", says=("none.pth",))
    (folder / "3.png").write_bytes(b"no picture")
    refused(damage.main, f"images={folder}", out, "size=64", says=("3.png",))
    for name in ("1.png", "2.png", "3.png"):
        (folder / name).unlink()
    refused(damage.main, f"images={folder}", out, says=("one picture",))


# --- docs


def test_the_documented_table_holds():
    """docs/metrics.md lists every metric for every damage, and those that should worsen do."""
    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    for kind in DAMAGES.values():
        part = text.partition(f"| {kind.what} | none |")[2].partition("\n\n")[0]
        for name in measured():
            (row,) = [line for line in part.splitlines() if line.startswith(f"| `{name}` |")]
            assert row.split(" | ")[6:8] == ["yes" if name in kind.seen_by else "no", row.split(" | ")[7]]
            assert name not in kind.seen_by or row.split(" | ")[7] == "yes", row


def test_every_figure_is_documented():
    from eval.registry import METRICS

    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    assert not [name for name in METRICS if f"`{name}`" not in text]
