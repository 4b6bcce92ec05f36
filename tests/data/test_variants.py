"""Further pictures of training items: mirrored and cropped, with all that belongs to them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.core.types import Item
from ragaf_exp.data.sources.scenes import Scenes
from ragaf_exp.data.variants import LEAST, CroppedItems, MirroredItems, pictures

SIDE = 32


class Ramps(list):
    """Items whose picture encodes where each pixel came from: its column in red, its row in green."""

    def __init__(self, count: int):
        row, column = np.mgrid[:SIDE, :SIDE]
        image = np.stack([column * 8, row * 8, 0 * row], -1).astype(np.uint8)
        drawing = (column / SIDE).astype(np.float32)
        objects = (column >= SIDE // 2).astype(np.uint8)
        super().__init__(Item(f"ramp{i}", image, "a ramp", drawing, (), objects) for i in range(count))


@settings(deadline=None, max_examples=40)
@given(number=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_crop_is_a_window_of_all_that_an_item_has(number, seed):
    crop = CroppedItems(Ramps(1), number, seed)[0]
    columns, rows = crop.image[..., 0] / 8, crop.image[..., 1] / 8
    wide, high = columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
    assert crop.image.shape == (SIDE, SIDE, 3) and LEAST * SIDE - 1 <= wide <= SIDE and abs(wide - high) <= 1
    assert (np.diff(columns, axis=1) >= 0).all() and (np.diff(rows, axis=0) >= 0).all()
    assert np.abs(crop.drawing * SIDE - columns).max() < 0.6, "the drawing shows the same window"
    away = np.abs(columns - SIDE / 2 + 0.5) > 1.5
    assert (crop.object_map[away] == (columns[away] >= SIDE // 2)).all(), "and so does the map of objects"


def test_crops_are_of_their_number_seed_and_item():
    items = Ramps(3)
    which = ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1))
    images = [CroppedItems(items, number, seed)[i].image for number, seed, i in which]
    assert all(not np.array_equal(one, two) for k, one in enumerate(images) for two in images[:k])
    assert np.array_equal(CroppedItems(items, 1, 0)[0].image, images[0])


def test_a_split_its_crops_and_all_of_them_mirrored():
    items = Scenes(train=2, val=2, test=2).split("train")
    plain, mirrored = pictures(items, 2, True, 0)
    assert [len(kind) for kind in (plain, mirrored)] == [3, 3] and all(len(some) == 2 for some in (*plain, *mirrored))
    for one, two in zip(plain, mirrored, strict=True):
        for name in ("image", "drawing", "object_map"):
            assert np.array_equal(getattr(one[1], name)[:, ::-1], getattr(two[1], name))
        assert one[1].caption == two[1].caption == items[1].caption
    assert pictures(items, 0, False, 0) == ([items], []) and isinstance(mirrored[0], MirroredItems)
