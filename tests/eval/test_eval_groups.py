"""Figures by difficulty: thirds, ties, and groups whose figures make up the whole's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.difficulty import group_figures, terciles
from eval.items import ItemRow, add_values, figure_of


def table(count: int = 30) -> list[ItemRow]:
    """Item i has density i, i % 4 regions, and two objects, of which the small one fails."""
    rows = [ItemRow(f"k{i}", stroke_density=i / 100, regions=i % 4, areas=[0.01 + i / 1000, 0.5]) for i in range(count)]
    add_values(rows, "ssim", [i / 100 for i in range(count)])
    add_values(rows, "binding_accuracy", [[0.0, 1.0]] * count)
    return rows


BETTER = {"ssim": True, "binding_accuracy": True}


def test_thirds_of_distinct_values():
    groups, bounds = terciles([5, 1, 9, 3, 7, 2])
    assert groups.tolist() == [1, 0, 2, 1, 2, 0] and bounds == [(1, 2), (3, 5), (7, 9)]


@pytest.mark.parametrize(
    ("values", "groups", "bounds"),
    [
        ([4, 4, 4], [0, 0, 0], [(4, 4)]),
        ([2, 2, 2, 2, 3], [0, 0, 0, 0, 1], [(2, 2), (3, 3)]),
        ([1, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0], [(1, 2)]),
        ([8], [0], [(8, 8)]),
        ([1, 2], [0, 1], [(1, 1), (2, 2)]),
    ],
)
def test_equal_values_share_a_group(values, groups, bounds):
    assigned, edges = terciles(values)
    assert assigned.tolist() == groups and edges == bounds


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9) | st.floats(-5, 5), min_size=1, max_size=60))
def test_groups_are_ordered_and_leave_no_gap(values):
    groups, bounds = terciles(values)
    assert set(groups.tolist()) == set(range(len(bounds))) and 1 <= len(bounds) <= 3
    for value, group in zip(values, groups, strict=True):
        assert bounds[group][0] <= value <= bounds[group][1]
    assert all(a[1] < b[0] for a, b in zip(bounds, bounds[1:], strict=False))
    assert (groups == 0).sum() >= len(values) / 3 - 1e-9


def test_no_values_are_refused():
    for values in ([], [[1.0]], [float("nan")]):
        with pytest.raises(ValueError, match="it must be"):
            terciles(values)


def test_figures_of_thirds():
    figures = group_figures(table(), BETTER)
    assert list(figures) == ["stroke_density", "regions", "mask_area", "largest_mask", "object_area"]
    low, middle, high = figures["stroke_density"]["groups"]
    assert [g["group"] for g in (low, middle, high)] == ["low", "middle", "high"]
    assert [g["items"] for g in (low, middle, high)] == [10, 10, 10]
    assert (low["from"], low["to"]) == (0.0, 0.09)
    assert low["metrics"]["ssim"]["value"] == pytest.approx(0.045) and low["metrics"]["ssim"]["n"] == 10
    assert low["metrics"]["ssim"]["ci95"][0] <= 0.045 <= low["metrics"]["ssim"]["ci95"][1]
    assert low["metrics"]["binding_accuracy"]["n"] == 20, "two objects an item"


def test_groups_make_up_the_whole():
    rows = table()
    whole = figure_of(rows, "ssim", higher_is_better=True)
    for fact in ("stroke_density", "regions", "mask_area", "largest_mask"):
        parts = [g["metrics"]["ssim"] for g in group_figures(rows, BETTER)[fact]["groups"]]
        assert sum(p["n"] for p in parts) == whole["n"]
        assert np.average([p["value"] for p in parts], weights=[p["n"] for p in parts]) == pytest.approx(whole["value"])


def test_objects_are_grouped_by_their_own_mask():
    """Every item is right in half of its objects; only by object does it show that the small ones fail."""
    figures = group_figures(table(), BETTER)
    assert [g["metrics"]["binding_accuracy"]["value"] for g in figures["mask_area"]["groups"]] == [0.5] * 3
    groups = figures["object_area"]["groups"]
    assert [g["metrics"]["binding_accuracy"]["value"] for g in groups] == pytest.approx([0.0, 0.75])
    assert [g["metrics"]["binding_accuracy"]["n"] for g in groups] == [20, 40]
    assert all(set(g["metrics"]) == {"binding_accuracy"} for g in groups), "an image has no object's area"


def test_values_of_regions_are_not_grouped_by_object():
    rows = table()
    add_values(rows, "region_clip_accuracy", [[1.0, 0.0, None]] * 30)
    figures = group_figures(rows, BETTER | {"region_clip_accuracy": True})
    assert figures["regions"]["groups"][0]["metrics"]["region_clip_accuracy"]["n"] == 32  # of 16 items, two known
    assert all("region_clip_accuracy" not in g["metrics"] for g in figures["object_area"]["groups"])


def test_items_without_the_fact_are_counted():
    rows = table()
    for row in rows[:4]:
        row.stroke_density = None
    rows += [ItemRow("bare", stroke_density=0.1, values={"ssim": 0.5})]
    figures = group_figures(rows, BETTER)
    assert figures["stroke_density"]["without"] == 4 and figures["regions"]["without"] == 1
    assert figures["object_area"]["without"] == 1
    assert sum(g["items"] for g in figures["regions"]["groups"]) == 30


def test_facts_that_no_item_has_are_left_out():
    rows = [ItemRow(f"k{i}", regions=i, values={"ssim": 0.5}) for i in range(6)]
    assert list(group_figures(rows, BETTER)) == ["regions"]
    assert group_figures([ItemRow("a")], BETTER) == {}
