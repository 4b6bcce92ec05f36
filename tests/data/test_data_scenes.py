"""Shape scenes: pure, disjoint, held-out pairs, true spans, masks and relations."""

from __future__ import annotations

import pickle
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Item
from ragaf_exp.data.sources.captions import RELATIONS, article, counted, object_phrase
from ragaf_exp.data.sources.palette import (
    BACKGROUND_COLOURS,
    BACKGROUND_LAB,
    BACKGROUND_NAMES,
    OBJECT_COLOURS,
    OBJECT_LAB,
    TONES,
    delta_e,
    from_lab,
    nearest_colour,
    to_lab,
)
from ragaf_exp.data.sources.scenes import FILLS, HELDOUT, Scenes, place
from ragaf_exp.data.sources.shapes import SHAPES

SPLIT_NAMES = ("train", "val", "test")


def relation_of(item: Item) -> str:
    first, second = item.objects[0].span[1], item.objects[1].span[0]
    return item.caption[first:second].strip()


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return list(Scenes(train=150).split("train"))


@pytest.fixture(scope="module")
def test_items() -> list[Item]:
    return list(Scenes(test=150).split("test"))


def test_an_item_has_the_agreed_types(items: list[Item]) -> None:
    for item in items[:20]:
        assert item.image.shape == (64, 64, 3) and item.image.dtype == np.uint8
        assert item.drawing.shape == (64, 64) and item.drawing.dtype == np.float32
        assert item.drawing.min() == 0 and 0.9 < item.drawing.max() <= 1
        assert item.object_map.shape == (64, 64) and item.object_map.dtype == np.uint8
        assert 2 <= len(item.objects) <= 5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), split=st.sampled_from(SPLIT_NAMES), index=st.integers(0, 255))
def test_items_are_pure_functions_of_seed_split_and_index(seed: int, split: str, index: int) -> None:
    one, other = (Scenes(seed=seed).split(split)[index] for _ in range(2))
    assert (one.key, one.caption, one.objects) == (other.key, other.caption, other.objects)
    for name in ("image", "drawing", "object_map"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_splits_and_seeds_share_no_scene() -> None:
    pictures = set()
    sources = [Scenes(seed=seed, train=40, val=40, test=40).split(name) for seed in (0, 1) for name in SPLIT_NAMES]
    for source in sources:
        pictures |= {item.image.tobytes() for item in source}
    assert len(pictures) == 40 * len(sources)
    assert len({item.key for source in sources for item in source}) == len(pictures)


def test_captions_are_known_without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Scenes(size=16, seed=3, train=20, val=5, test=5)
    wanted = {name: [item.caption for item in source.split(name)] for name in ("train", "val", "test")}
    monkeypatch.setattr(Scenes, "_draw", lambda *_: pytest.fail("drawn"))
    assert all(source.split(name).captions(99) == captions for name, captions in wanted.items())
    assert source.split("train").captions(4) == wanted["train"][:4]


def test_a_split_is_a_sequence_that_travels_to_workers() -> None:
    split = Scenes(val=5).split("val")
    assert len(split) == len(list(split)) == 5
    assert split[-1].key == split[4].key == pickle.loads(pickle.dumps(split))[4].key
    for index in (5, -6):
        with pytest.raises(IndexError):
            split[index]


def test_heldout_pairs_are_one_colour_per_shape_and_only_in_test(items: list[Item], test_items: list[Item]) -> None:
    assert set(HELDOUT) == set(SHAPES) and sorted(HELDOUT.values()) == sorted(OBJECT_COLOURS)
    for item in items + list(Scenes(val=60).split("val")):
        for thing in item.objects:
            assert not thing.heldout and HELDOUT[thing.shape] != thing.colour
    things = [thing for item in test_items for thing in item.objects]
    assert all(thing.heldout == (HELDOUT[thing.shape] == thing.colour) for thing in things)
    assert 0.25 < np.mean([thing.heldout for thing in things]) < 0.45
    assert all(t.heldout for item in Scenes(test=5, heldout_share=1, max_objects=3).split("test") for t in item.objects)


def test_every_shape_colour_fill_relation_and_background_occurs(items: list[Item]) -> None:
    things = [thing for item in items for thing in item.objects]
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.colour for thing in things} == set(OBJECT_COLOURS)
    shares = {fill: np.mean([thing.fill == fill for thing in things]) for fill in FILLS}
    assert 0.45 < shares["plain"] < 0.65 and all(0.09 < shares[fill] < 0.21 for fill in FILLS if fill != "plain")
    assert {relation_of(item) for item in items} == set(RELATIONS)
    assert {name for name in BACKGROUND_NAMES for item in items if f"{name} background" in item.caption} == set(
        BACKGROUND_NAMES
    )


def test_spans_hold_each_objects_phrase(items: list[Item]) -> None:
    for item in items:
        for i, thing in enumerate(item.objects, 1):
            assert thing.label == i
            start, end = thing.span
            assert item.caption[start:end] == object_phrase(thing.shape, thing.colour, thing.fill)
        named = [(thing.shape, thing.colour, thing.fill) for thing in item.objects]
        assert len(set(named)) == len(named)
        shapes = [thing.shape for thing in item.objects]
        assert [thing.repeated for thing in item.objects] == [shapes.count(shape) > 1 for shape in shapes]


def test_relations_are_true_of_the_masks(items: list[Item]) -> None:
    for item in items:
        axis, sign = RELATIONS[relation_of(item)]
        along = [np.argwhere(item.object_map == t.label).mean(0)[1 - axis] for t in item.objects]
        assert (sign * np.diff(along) > 1).all(), item.caption  # masks of moons lie off their centres


def test_masks_hold_the_captions_colours(items: list[Item], test_items: list[Item]) -> None:
    for item in items + test_items:
        for thing in item.objects:
            inside = item.object_map == thing.label
            mean = item.image[inside].mean(0) / 255
            assert nearest_colour(mean) == thing.colour
            if thing.fill == "plain":
                core = cv2.erode(inside.astype(np.uint8), np.ones((3, 3))) > 0
                assert (item.image[core] == OBJECT_COLOURS[thing.colour]).mean() > 0.95  # notches
        ground = cv2.dilate((item.object_map > 0).astype(np.uint8), np.ones((7, 7))) == 0  # beyond any sharp tip
        name = next(name for name in BACKGROUND_NAMES if f"{name} background" in item.caption)
        assert (item.image[ground] == BACKGROUND_COLOURS[name]).all()


def test_textures_show_two_tones_and_rings_a_hole(items: list[Item]) -> None:
    for item in items:
        for thing in item.objects:
            inside = (item.object_map == thing.label).astype(np.uint8)
            core = item.image[cv2.erode(inside, np.ones((3, 3))) > 0]
            if thing.fill in ("striped", "dotted"):
                assert 5 < np.ptp(to_lab(core)[:, 0]) < 20
            outlines, tree = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            holes = 0 if tree is None else int((np.asarray(tree).reshape(-1, 4)[:, 3] >= 0).sum())
            assert (holes == 1) == (thing.fill == "hollow"), (item.key, thing)
            assert len(outlines) == holes + 1


def test_objects_are_whole_apart_and_inside_the_frame(items: list[Item]) -> None:
    for item in items:
        assert not item.object_map[[0, -1]].any() and not item.object_map[:, [0, -1]].any()
        for thing in item.objects:
            mask = (item.object_map == thing.label).astype(np.uint8)
            assert mask.sum() >= 25
            near = cv2.dilate(mask, np.ones((3, 3)))
            assert set(np.unique(item.object_map[near > 0])) <= {0, thing.label}


def test_drawings_follow_the_outlines(items: list[Item]) -> None:
    for item in items[:40]:
        edges = cv2.morphologyEx((item.object_map > 0).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))
        strokes = item.drawing > 0.5
        away = cv2.distanceTransform((1 - edges).astype(np.uint8), cv2.DIST_L2, 5)
        assert away[strokes].max() <= 2
        covered = cv2.dilate(strokes.astype(np.uint8), np.ones((3, 3)))
        assert covered[edges > 0].mean() > 0.93


@pytest.mark.parametrize("size", [16, 32, 96, 256])
def test_other_sizes_show_the_same_scene(size: int) -> None:
    for index in range(6):
        small, item = Scenes(size=64).split("test")[index], Scenes(size=size).split("test")[index]
        assert item.image.shape == (size, size, 3) and item.drawing.shape == item.object_map.shape == (
            size,
            size,
        )
        assert (item.caption, item.objects) == (small.caption, small.objects)
        mean = [cv2.resize(i.image, (16, 16), interpolation=cv2.INTER_AREA).astype(float) for i in (small, item)]
        assert np.abs(mean[0] - mean[1]).mean() < 6


def test_three_hundred_scenes_a_second() -> None:
    split = Scenes().split("train")
    split[0]
    start = time.process_time()
    for index in range(150):
        split[index]
    assert 150 / (time.process_time() - start) > 150  # measured 700 to 1,000; half of the promise, for slow hosts


def test_palette_names_are_far_apart() -> None:
    apart = delta_e(OBJECT_LAB[:, None], OBJECT_LAB)[~np.eye(len(OBJECT_LAB), dtype=bool)]
    assert len(OBJECT_LAB) == 8 and apart.min() >= 38
    assert delta_e(OBJECT_LAB[:, None], BACKGROUND_LAB).min() >= 33
    for name, (dark, light) in TONES.items():
        assert delta_e(to_lab(dark / 255), to_lab(light / 255)) <= 16
        assert nearest_colour((dark + light) / 510) == nearest_colour(dark / 255) == nearest_colour(light / 255) == name


def test_lab_agrees_with_scikit_image() -> None:
    color = pytest.importorskip("skimage.color")
    rgb = np.random.default_rng(0).integers(0, 256, (500, 3), dtype=np.uint8)
    assert np.abs(to_lab(rgb) - color.rgb2lab(rgb / 255)).max() < 0.6
    assert np.abs(from_lab(to_lab(rgb)) - rgb).max() < 2


def test_placed_discs_keep_their_distance() -> None:
    radii = np.array([8.0, 9, 7, 8, 10])
    for seed in range(20):
        centres = place(np.random.default_rng(seed), radii)
        gaps = np.linalg.norm(centres[:, None] - centres, axis=-1) - radii[:, None] - radii
        assert gaps[~np.eye(5, dtype=bool)].min() >= 2.5
        assert (centres.min(1) >= radii).all() and (centres.max(1) <= 64 - radii).all()
        assert np.diff(np.sort(centres, 0), axis=0).min(0).max() >= 4


def test_articles() -> None:
    assert [article(w) for w in ("orange star", "red star", "unicorn", "umbrella", "hourglass", "x-ray")] == [
        "an orange star",
        "a red star",
        "a unicorn",
        "an umbrella",
        "an hourglass",
        "an x-ray",
    ]
    assert counted("grapes") == "grapes" and counted("bus") == "a bus" and counted("dress") == "a dress"
    assert counted("money with wings") == "a money with wings"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 63),
        ("size", 8),
        ("seed", -1),
        ("train", -1),
        ("min_objects", 0),
        ("min_objects", 6),
        ("max_objects", 6),
        ("heldout_share", 1.5),
    ],
)
def test_values_out_of_range_are_named(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"^data.{key}={value}: "):
        Scenes(**{key: value})


def test_unknown_split_is_named() -> None:
    with pytest.raises(UserError, match="'dev' is unknown; take one of train, val, test"):
        Scenes().split("dev")
