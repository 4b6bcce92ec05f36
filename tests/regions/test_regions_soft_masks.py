"""Soft masks against slow area pooling at any resolution and precision; the overlay picture."""

import cv2
import numpy as np
import pytest
import torch
from drawings import rings
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.graph import Adjacency
from ragaf_exp.regions import Enclosed, soft_masks
from ragaf_exp.viz.regions import region_overlay

SIDES = st.sampled_from([1, 2, 3, 8, 12, 17])
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]
AUTOCAST = [torch.float16, torch.bfloat16]


def random_labels(seed: int, *shape: int, count: int = 5) -> torch.Tensor:
    return torch.randint(-1, count, shape, generator=torch.Generator().manual_seed(seed))


def cover(cells: int, pixels: int) -> np.ndarray:
    """(cells, pixels): the share of each cell that each pixel covers, one by one."""
    shares = np.zeros((cells, pixels))
    for i in range(cells):
        for j in range(pixels):
            low, high = max(i / cells, j / pixels), min((i + 1) / cells, (j + 1) / pixels)
            shares[i, j] = max(high - low, 0) * cells
    return shares


def slow_masks(labels: torch.Tensor, count: int, size: tuple[int, int]) -> torch.Tensor:
    """The share of each cell that each region covers, item by item and region by region."""
    (h, w), (height, width) = size, labels.shape[1:]
    rows, columns = cover(h, height), cover(w, width)
    masks = [[rows @ (item.numpy() == i) @ columns.T for i in range(count)] for item in labels]
    return torch.tensor(np.array(masks), dtype=torch.float32).view(len(labels), count, h, w)


@given(seed=st.integers(0, 10**6), batch=st.integers(1, 3), height=SIDES, width=SIDES, h=SIDES, w=SIDES)
@settings(max_examples=120, deadline=None)
def test_masks_are_shares_of_area_at_any_resolution(seed, batch, height, width, h, w):
    labels = random_labels(seed, batch, height, width)
    masks = soft_masks(labels, 5, (h, w))
    torch.testing.assert_close(masks, slow_masks(labels, 5, (h, w)), rtol=1e-5, atol=1e-6)
    assert masks.dtype == torch.float32 and masks.min() >= 0 and masks.sum(dim=1).max() <= 1 + 1e-6


@given(seed=st.integers(0, 10**6), h=st.integers(1, 20), w=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_area_is_conserved(seed, h, w):
    labels = random_labels(seed, 2, 16, 24)
    share = torch.stack([(labels == i).float().mean(dim=(1, 2)) for i in range(5)], dim=1)
    torch.testing.assert_close(soft_masks(labels, 5, (h, w)).mean(dim=(2, 3)), share)


@given(seed=st.integers(0, 10**6), h=SIDES, w=SIDES)
@settings(max_examples=30, deadline=None)
def test_where_every_pixel_has_a_region_cells_are_full(seed, h, w):
    labels = random_labels(seed, 2, 12, 17).clamp(min=0)
    torch.testing.assert_close(soft_masks(labels, 5, (h, w)).sum(dim=1), torch.ones(2, h, w))


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1), (64, 64), (100, 90)])
@pytest.mark.parametrize("side", [64, 72, 100, 256])
def test_line_one_pixel_wide_is_not_lost(size, side):
    labels = torch.zeros(1, side, side, dtype=torch.long)
    labels[:, :, 37] = 1
    mask = soft_masks(labels, 2, size)[0, 1]
    assert (mask.amax(dim=1) > 0).all() and mask.mean() == pytest.approx(1 / side, rel=1e-4)


def test_a_thin_region_of_a_drawing_is_not_lost():
    canvas = np.zeros((64, 64), np.uint8)
    cv2.rectangle(canvas, (20, 10), (22, 54), 255, 1)  # one pixel wide inside
    regions = Enclosed(strokes="none")(canvas / np.float32(255))
    labels = torch.from_numpy(regions.labels).long()[None]
    assert regions.count == 2 and (labels == 1).sum() == 43
    for side in (64, 32, 16, 8, 4):
        assert soft_masks(labels, 2, (side, side))[0, 1].mean() == pytest.approx(43 / 64**2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", AUTOCAST)
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (7, 5), (48, 40)])
def test_autocast_changes_nothing(device, dtype, size):
    labels = random_labels(0, 4, 32, 32)
    with torch.autocast(device, dtype):
        masks = soft_masks(labels.to(device), 5, size)
    assert masks.dtype == torch.float32 and masks.device.type == device
    torch.testing.assert_close(masks.cpu(), slow_masks(labels, 5, size), rtol=1e-5, atol=1e-6)


def test_items_of_a_batch_are_apart():
    labels = random_labels(1, 6, 24, 24)
    for size in ((8, 8), (24, 24), (7, 9)):
        alone = torch.cat([soft_masks(item[None], 5, size) for item in labels])
        torch.testing.assert_close(soft_masks(labels, 5, size), alone)


@pytest.mark.parametrize("count", [0, 1, 200])
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (3, 5)])
def test_any_number_of_regions(count, size):
    labels = torch.full((2, 8, 8), min(count, 1) - 1)
    masks = soft_masks(labels, count, size)
    assert masks.shape == (2, count, *size) and masks[:, 1:].sum() == 0
    assert count == 0 or (masks[:, 0] - 1).abs().max() < 1e-6


def test_unused_regions_and_unlabelled_pixels_are_empty():
    labels = torch.full((2, 8, 8), -1)
    labels[0, :4] = 1
    for side in (4, 8, 6):
        masks = soft_masks(labels, 3, (side, side))
        assert masks[1].sum() == 0 and masks[0, [0, 2]].sum() == 0
        assert masks[0, 1].sum() == pytest.approx(side**2 / 2)


def test_overlay_colours_regions_and_marks_the_background():
    canvas = np.zeros((64, 64), np.uint8)
    cv2.circle(canvas, (20, 32), 14, 255, 1)
    cv2.circle(canvas, (48, 32), 10, 255, 1)
    sketch = canvas / np.float32(255)
    regions = Enclosed()(sketch)
    picture = region_overlay(sketch, regions, Adjacency()(regions))
    assert picture.dtype == np.uint8 and picture.shape == (256, 256, 3)
    ground, one, two = (picture[4 * y, 4 * x].astype(int) for x, y in ((2, 2), (13, 24), (44, 25)))
    assert np.ptp(ground) == 0 and np.ptp(one) > 40 and np.ptp(two) > 40 and abs(one - two).max() > 60
    assert picture[128, 25].max() < 80, "strokes are dark"
    plain = region_overlay(sketch, regions)
    assert (plain != picture).any(), "edges are drawn"


def test_overlay_shows_pixels_without_a_region_as_strokes_or_paper():
    sketch = rings(20)
    regions = Enclosed(strokes="none")(sketch)
    picture = region_overlay(sketch, regions)
    assert picture[4 * 32 + 2, 4 * 12 + 2].max() < 80 and np.ptp(picture[4 * 20, 4 * 32].astype(int)) > 40


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (5, 2), (300, 400)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_overlay_of_odd_sketches(shape, value):
    sketch = np.full(shape, value, np.float32)
    regions = Enclosed()(sketch)
    picture = region_overlay(sketch, regions, Adjacency()(regions))
    assert picture.shape[0] % shape[0] == 0 and picture.shape[1] <= max(1024, shape[1])
