"""Figures with parts: every colour of the caption is in the image, at the place and under the outline that it names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.scoring import bindings
from ragaf_exp.config.build import build
from ragaf_exp.config.compose import compose_config
from ragaf_exp.data.sources.figure_captions import SYNONYMS, Painted, figure_phrase
from ragaf_exp.data.sources.figure_parts import COMPOSITE, NESTING, PLAIN, inside
from ragaf_exp.data.sources.figures import Figures, place
from ragaf_exp.data.sources.palette import WIDE_COLOURS
from ragaf_exp.regions.enclosed import Enclosed

SOURCE = Figures(size=64, train=400)


@settings(deadline=None)
@given(st.integers(0, 399))
def test_an_item_is_what_its_caption_says(index):
    item = SOURCE.split("train")[index]
    assert item.image.shape == (64, 64, 3) and item.drawing.shape == item.object_map.shape == (64, 64)
    assert set(np.unique(item.object_map)) - {0} == {thing.label for thing in item.objects}
    for thing in item.objects:
        phrase = item.caption[slice(*thing.span)].lower()
        assert thing.colour in phrase or any(word in phrase for word in SYNONYMS[thing.colour])


def test_the_images_show_every_colour():
    """The code that scores samples detects the captions' colours in the images."""
    correct = [bound.correct for item in Figures(test=64).split("test") for bound in bindings(item.image, item) or []]
    assert len(correct) > 150 and np.mean(correct) > 0.99


def test_items_depend_on_seed_split_and_index_alone():
    again = Figures(size=64, train=5).split("train")
    assert np.array_equal(again[3].image, SOURCE.split("train")[3].image)
    assert again[3].caption == again.captions(4)[3] == SOURCE.split("train")[3].caption
    assert not np.array_equal(again[3].image, Figures(size=64).split("val")[3].image)
    assert not np.array_equal(again[3].image, Figures(size=64, seed=1).split("train")[3].image)


@settings(deadline=None)
@given(st.lists(st.floats(1.0, 30.0), min_size=1, max_size=8), st.integers(0, 99))
def test_discs_never_overlap_or_leave_the_page(radii, seed):
    radii, centres = place(np.random.default_rng(seed), np.sort(radii)[::-1])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 1e9 * np.eye(len(radii))
    assert (apart >= radii[:, None] + radii[None]).all()
    assert (centres >= radii[:, None]).all() and (centres <= 64 - radii[:, None]).all()


@pytest.mark.parametrize("name", [*PLAIN, *COMPOSITE])
def test_outlines_fit_the_square(name):
    for part in {**PLAIN, **COMPOSITE}[name].parts:
        for outline in part.outlines:
            assert outline.shape == (128, 2) and np.abs(outline).max() <= 1.06


@pytest.mark.parametrize("outer", NESTING)
def test_a_nested_shape_lies_in_the_outer_one(outer):
    import cv2

    figure = inside(outer, "star")
    body, core = (part.outlines[0] for part in figure.parts)
    assert all(cv2.pointPolygonTest(body[:, None], (float(x), float(y)), False) > 0 for x, y in core)


def test_phrases_name_parts_with_their_articles():
    rng = np.random.default_rng(1)
    phrase = figure_phrase(rng, Painted("car", "red"), [Painted("window", "cyan"), Painted("wheels", "black")])
    named = [phrase.text[slice(*span)] for span in phrase.spans]
    assert named[0].startswith("a ") and named[0].endswith(" car")
    assert named[1].endswith(" window") and named[2].endswith("wheels") and not named[2].startswith(("a ", "an "))
    assert figure_phrase(rng, Painted("car", ""), [Painted("window", "cyan")]).spans[0] == (0, 0)


def test_parts_of_a_large_house_are_regions():
    """Its wall, roof, door and window are separate regions of the sketch, as the region path needs them."""
    items = SOURCE.split("train")
    houses = [i for i, caption in enumerate(items.captions(400)) if "house" in caption]
    index = next(i for i in houses if len(items[i].objects) == 3)
    item = Figures(size=128, train=400).split("train")[index]
    assert Enclosed()(item.drawing).count >= 3


def test_pens_differ_in_width():
    ink = [
        item.drawing.mean() / max((item.object_map > 0).mean(), 0.05)
        for item in (SOURCE.split("train")[i] for i in range(60))
    ]
    assert np.percentile(ink, 90) > 2 * np.percentile(ink, 10)


def test_the_config_builds_it(refused):
    source = build(compose_config(["data=figures", "data.size=32", "data.max_objects=1"]).data, "data")
    assert all(len(source.split("train")[i].objects) <= 5 for i in range(20))  # one figure and its named parts
    assert set(WIDE_COLOURS) == set(SYNONYMS)
    from ragaf_exp import run

    refused(run.main, "data=figures", "data.max_objects=9", says=("data.max_objects=9", "from 1 to 8"))
