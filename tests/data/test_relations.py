"""Scenes of equal shapes: what a caption says of each object is true of its mask, and determines its colour."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics.binding import binding_splits
from eval.scoring import bindings
from ragaf_exp import run
from ragaf_exp.config.compose import compose_config
from ragaf_exp.data.sources.relation_captions import ORDINALS
from ragaf_exp.data.sources.relations import KINDS, Relations
from ragaf_exp.regions.enclosed import Enclosed

SOURCE = Relations(train=500)
AXES = {"left": (1, 1), "right": (1, -1), "top": (0, 1), "bottom": (0, -1)}  # axis of the array, direction
CHAINS = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}


def masks_of(item):
    return [item.object_map == thing.label for thing in item.objects]


def centres_of(item):
    return np.array([np.argwhere(mask).mean(0) for mask in masks_of(item)])  # (N,2): row and column


def phrases_of(item):
    return [item.caption[slice(*thing.span)] for thing in item.objects]


@settings(deadline=None)
@given(st.integers(0, 499))
def test_captions_are_true(index):
    item = SOURCE.split("train")[index]
    assert len({thing.shape for thing in item.objects}) == 1
    assert all(thing.colour in phrase for thing, phrase in zip(item.objects, phrases_of(item), strict=True))
    checks = {"ordinal": _ranks, "size": _sizes, "inside": _nesting, "between": _between}
    checks.get(item.objects[0].relation, _chain)(item)


def _chain(item):
    axis, sign = AXES[CHAINS[item.objects[0].relation]]
    assert (np.diff(sign * centres_of(item)[:, axis]) > 0).all()


def _ranks(item):
    axis, sign = AXES[re.search(r"from the (\w+)", item.caption)[1]]
    order = np.argsort(np.argsort(sign * centres_of(item)[:, axis]))
    assert [ORDINALS[rank] in phrase for rank, phrase in zip(order, phrases_of(item), strict=True)] == [True] * len(order)


def _sizes(item):
    areas = [mask.sum() for mask in masks_of(item)]
    for area, phrase in zip(areas, phrases_of(item), strict=True):
        assert ("larg" in phrase) == (area == max(areas)) and ("small" in phrase) == (area == min(areas))


def _nesting(item):
    inner = masks_of(item)[0]
    for outer in masks_of(item)[1:]:  # named from the innermost
        rows, columns = np.nonzero(outer)
        inside = np.argwhere(inner)
        assert rows.min() < inside[:, 0].min() and rows.max() > inside[:, 0].max()
        assert columns.min() < inside[:, 1].min() and columns.max() > inside[:, 1].max()
        inner = outer


def _between(item):
    along = {"left": 1, "right": 1, "top": 0, "bottom": 0}
    centres, phrases = centres_of(item), phrases_of(item)
    for centre, phrase in zip(centres[1:], phrases[1:], strict=True):
        side = re.search(r"(left|right|top|bottom)$", phrase)[1]
        axis, sign = along[side], 1 if side in ("left", "top") else -1
        assert sign * centre[axis] < sign * centres[0][axis]


def test_every_object_is_a_region_and_shows_its_colour():
    find = Enclosed()
    for item in (SOURCE.split("train")[i] for i in range(80)):
        assert find(item.drawing).count >= 1 + len(item.objects)
        assert all(bound.correct for bound in bindings(item.image, item))


def test_figures_are_grouped_by_relation():
    items = [SOURCE.split("train")[i] for i in range(60)]
    splits = binding_splits([bindings(item.image, item) for item in items], resamples=20)
    groups = {group["group"] for group in splits["relations"]["groups"]}
    assert {"between", "ordinal", "inside", "size"} < groups and groups & set(CHAINS)
    assert all(group["metrics"]["binding_accuracy"]["value"] == 1 for group in splits["relations"]["groups"])


def test_scenes_of_other_sources_have_no_such_groups(tiny):
    from ragaf_exp.data.sources.scenes import Scenes

    items = [Scenes(train=8).split("train")[i] for i in range(8)]
    assert "relations" not in binding_splits([bindings(item.image, item) for item in items], resamples=20)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_alone(kind):
    items = Relations(kinds=[kind]).split("val")
    names = {items[i].objects[0].relation for i in range(30)}
    assert names <= set(CHAINS) if kind == "chain" else names == {kind}


def test_unknown_kinds_are_refused(refused):
    refused(run.main, "data=relations", "data.kinds=[behind]", says=("data.kinds=behind", "chain"))
    refused(run.main, "data=relations", "data.kinds=[]", says=("data.kinds=[]",))


def test_the_study_compares_edges():
    assert compose_config(["+experiment=relations"]).study.member == "complete"
    cfg = compose_config(["+experiment=relations", "member=relations/set"])
    assert cfg.ragaf.edges == "none" and cfg.study.member == "set" and cfg.graph._target_.endswith("Complete")
