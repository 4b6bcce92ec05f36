"""Generated masks, and masks read from files in any convention."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.masks.generate import KINDS, WIDTHS, Masks, area_bin, bin_name
from ragaf_exp.data.masks.read import read_mask


def shares(kind: str, width: str, side: int = 64, count: int = 150) -> float:
    masks = Masks(kind, width, (0.0, 1.0))
    return float(np.mean([masks(str(i), side, side).mean() for i in range(count)]))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(WIDTHS)), st.text(max_size=5),
       st.integers(16, 90), st.integers(16, 90), st.integers(0, 5))  # fmt: skip
def test_a_mask_is_a_function_of_seed_and_key(kind, width, key, rows, columns, seed):
    mask = Masks(kind, width, seed=seed)(key, rows, columns)
    assert mask.shape == (rows, columns) and mask.dtype == bool and mask.any()
    assert (mask == Masks(kind, width, seed=seed)(key, rows, columns)).all()


def test_seeds_and_keys_give_different_masks():
    masks = [Masks("strokes", seed=s)(k, 64, 64).tobytes() for s in (0, 1) for k in ("a", "b", "c")]
    assert len(set(masks)) == 6


def test_wider_strokes_cover_more_and_the_share_does_not_depend_on_the_size():
    thin, medium, thick = (shares("boxes", width) for width in ("thin", "medium", "thick"))
    assert thin < medium / 2 < thick / 4
    for kind in ("strokes", "shapes", "mat_large"):
        assert shares(kind, "medium", 64) == pytest.approx(shares(kind, "medium", 192), abs=0.04)
    assert shares("mat_large", "medium") > shares("mat_small", "medium") + 0.1


def test_thin_strokes_are_thin():
    """No pixel of a thin stroke is far from its edge, and those of thick strokes are."""
    from scipy.ndimage import distance_transform_edt

    depth = {}
    for width in ("thin", "thick"):
        masks = Masks("strokes", width)
        depth[width] = np.mean([distance_transform_edt(masks(str(i), 128, 128)).max() for i in range(20)])
    assert depth["thin"] < 8 < depth["thick"]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["strokes", "mat_large", "lama", "mixed"]), st.integers(0, 4), st.integers(0, 1000))
def test_the_area_range_holds(kind, low, key):
    area = (low / 10, low / 10 + 0.1)
    mask = Masks(kind, "thick", area)(str(key), 96, 96)
    assert area[0] - 1e-9 <= mask.mean() <= area[1] + 1e-9
    assert area_bin(mask) == low or mask.mean() == pytest.approx(area[0])


def test_bins_and_their_names():
    mask = np.zeros((10, 10), bool)
    numbers = []
    for count in (0, 1, 10, 11, 20, 55, 100):
        mask.flat[:] = False
        mask.flat[:count] = True
        numbers.append(area_bin(mask))
    assert numbers == [0, 0, 0, 1, 1, 5, 9] and bin_name(1) == "10-20 %"


@pytest.mark.parametrize(
    "arguments", [("holes",), ("lama", "wide"), ("lama", "thin", (0.5, 0.5)), ("lama", "thin", (0, 2))]
)
def test_wrong_settings_are_one_line(arguments):
    with pytest.raises(UserError, match="must be"):
        Masks(*arguments)


# --- files

HOLE = np.zeros((40, 60), bool)
HOLE[10:25, 20:45] = True


def saved(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


def conventions(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write one hole in every convention: name -> (file, arguments needed to read it)."""
    grey = np.where(HOLE, 255, 0).astype(np.uint8)
    colour = np.full((40, 60, 3), (90, 120, 40), np.uint8)
    erased = np.dstack([colour, np.where(HOLE, 0, 255).astype(np.uint8)])
    painted = np.dstack([colour, grey])
    files = {
        "0/255": (saved(folder / "a.png", grey), "auto"),
        "0/1": (saved(folder / "b.png", HOLE.astype(np.uint8)), "auto"),
        "one bit": (saved(folder / "c.png", HOLE), "auto"),
        "inverted": (saved(folder / "d.png", 255 - grey), "auto"),
        "inverted 0/1": (saved(folder / "e.png", 1 - HOLE.astype(np.uint8)), "auto"),
        "black": (saved(folder / "f.png", 255 - grey), "black"),
        "transparent": (saved(folder / "g.png", erased), "auto"),
        "opaque": (saved(folder / "h.png", painted), "opaque"),
        "rgb": (saved(folder / "i.png", np.repeat(grey[..., None], 3, 2)), "white"),
    }  # fmt: skip
    Image.fromarray(grey).save(folder / "j.jpg", quality=70)
    return {**files, "jpeg": (folder / "j.jpg", "auto")}


def test_every_convention_is_the_same_hole(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        for name, (path, hole) in conventions(tmp_path).items():
            result = read_mask(path, hole)
            assert (result.hole == HOLE).all(), name
            assert str(path) in result.assumed and ("given" in result.assumed) == (hole != "auto"), name
            assert result.assumed in caplog.text and "\n" not in result.assumed


def test_soft_edges_are_cut_at_one_half_and_reported(tmp_path):
    import cv2

    soft = cv2.GaussianBlur(np.where(HOLE, 255, 0).astype(np.uint8), (0, 0), 3)
    result = read_mask(saved(tmp_path / "soft.png", soft))
    assert abs(result.hole.sum() - HOLE.sum()) < 0.1 * HOLE.sum()
    assert "cut at one half" in result.assumed and 0.2 < result.soft[10, 30] < 0.8


def test_empty_and_full_masks_are_read_as_they_are(tmp_path):
    assert not read_mask(saved(tmp_path / "none.png", np.zeros((8, 8), np.uint8))).hole.any()
    assert read_mask(saved(tmp_path / "all.png", np.full((8, 8), 255, np.uint8))).hole.all()


def test_a_large_hole_in_the_middle_is_not_inverted_by_guess(tmp_path):
    hole = np.zeros((40, 40), np.uint8)
    hole[4:36, 4:36] = 255  # 64 % white, with a black border
    assert read_mask(saved(tmp_path / "m.png", hole)).hole.mean() == pytest.approx(0.64)


def test_invalid_conventions_and_missing_files_are_refused(tmp_path):
    path = saved(tmp_path / "m.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match="no alpha channel"):
        read_mask(path, "transparent")
    with pytest.raises(UserError, match="must be one of"):
        read_mask(path, "grey")
    with pytest.raises(UserError, match="no such file"):
        read_mask(tmp_path / "absent.png")


def test_real_masks_have_a_hole_where_their_pictures_do(shared_data):
    """Published masks of three projects, as JPEG, 1-bit PNG and RGB."""
    for path in sorted((shared_data / "inpaint").rglob("*mask*")):
        if path.is_file():
            assert 0 < read_mask(path).share < 0.75, path
