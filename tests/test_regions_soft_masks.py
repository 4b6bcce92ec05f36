"""Soft masks and the overlay picture."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import adaptive_avg_pool2d

from ragaf_exp.graph import Adjacency
from ragaf_exp.regions import Enclosed, region_overlay, soft_masks

SIDES = st.sampled_from([1, 3, 8, 12, 17])


def random_labels(seed: int, *shape: int, count: int = 5) -> torch.Tensor:
    return torch.randint(-1, count, shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 10**6), batch=st.integers(1, 3), height=SIDES, width=SIDES, h=SIDES, w=SIDES)
@settings(max_examples=60, deadline=None)
def test_equal_to_pooling_each_mask(seed, batch, height, width, h, w):
    labels = random_labels(seed, batch, height, width)
    masks = soft_masks(labels, 5, (h, w))
    each = torch.stack([adaptive_avg_pool2d((labels == i).float(), (h, w)) for i in range(5)], dim=1)
    torch.testing.assert_close(masks, each)
    assert masks.dtype == torch.float32 and masks.min() >= 0 and masks.sum(dim=1).max() <= 1 + 1e-6


@given(seed=st.integers(0, 10**6), h=st.sampled_from([1, 2, 4, 8, 16]), w=st.sampled_from([1, 3, 6, 24]))
@settings(max_examples=30, deadline=None)
def test_area_is_conserved(seed, h, w):
    labels = random_labels(seed, 2, 16, 24)
    share = torch.stack([(labels == i).float().mean(dim=(1, 2)) for i in range(5)], dim=1)
    torch.testing.assert_close(soft_masks(labels, 5, (h, w)).mean(dim=(2, 3)), share)


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_line_one_pixel_wide_is_not_lost(size):
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, :, 37] = 1
    mask = soft_masks(labels, 2, size)[0, 1]
    assert (mask.amax(dim=1) > 0).all()


def test_unused_regions_and_unlabelled_pixels_are_empty():
    labels = torch.full((2, 8, 8), -1)
    labels[0, :4] = 1
    masks = soft_masks(labels, 3, (4, 4))
    assert masks[1].sum() == 0 and masks[0, [0, 2]].sum() == 0 and masks[0, 1].sum() == 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_same_on_the_device(size):
    labels = random_labels(0, 4, 32, 32)
    torch.testing.assert_close(soft_masks(labels.cuda(), 5, size).cpu(), soft_masks(labels, 5, size))


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


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (5, 2), (300, 400)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_overlay_of_odd_sketches(shape, value):
    sketch = np.full(shape, value, np.float32)
    regions = Enclosed()(sketch)
    picture = region_overlay(sketch, regions, Adjacency()(regions))
    assert picture.shape[0] % shape[0] == 0 and picture.shape[1] <= max(1024, shape[1])
