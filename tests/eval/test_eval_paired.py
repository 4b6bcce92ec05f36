"""The paired bootstrap against known answers, and which items two runs share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.items import ItemRow
from eval.statistics.bootstrap import mean_interval, resampled_sums
from eval.statistics.paired import paired_differences, shared_items

RNG = np.random.default_rng(7)


def test_a_constant_shift_has_an_interval_without_width():
    base = RNG.normal(size=80)
    (difference,) = paired_differences([list(base), list(base + 0.25)])
    assert difference.value == pytest.approx(0.25)
    assert difference.high - difference.low == pytest.approx(0, abs=1e-12) and difference.low == pytest.approx(0.25)
    assert difference.clear and (difference.n, difference.items) == (80, 80)


def test_unpaired_intervals_would_overlap():
    """Items differ far more than the runs do, so that only paired intervals are clear."""
    base = RNG.normal(0, 10, 100)
    other = base + 0.5 + RNG.normal(0, 0.5, 100)
    (difference,) = paired_differences([list(base), list(other)])
    assert difference.clear and difference.low == pytest.approx(0.4, abs=0.1)
    assert mean_interval(other)[1] < mean_interval(base)[2]


def test_noise_covers_zero_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    trials, covered = 400, 0
    for trial in range(trials):
        a, b = rng.normal(size=(2, 60))
        (difference,) = paired_differences([list(a), list(b)], seed=trial, resamples=400)
        covered += not difference.clear
    assert 0.915 <= covered / trials <= 0.975  # three standard errors about 0.945, which 60 items reach


def test_the_interval_is_that_of_the_t_distribution():
    change = RNG.normal(0.1, 1, 400)
    (difference,) = paired_differences([[0.0] * 400, list(change)], resamples=20_000)
    error = 1.96 * change.std() / 20
    assert difference.low == pytest.approx(change.mean() - error, abs=0.01)
    assert difference.high == pytest.approx(change.mean() + error, abs=0.01)


def test_objects_weigh_alike_and_are_drawn_with_their_item():
    """Ten objects of one item that change together are worth one item, not ten."""
    first = [[0.0] * 10 if i % 2 else [0.0] for i in range(40)]
    other = [[float(i % 4 == 1)] * 10 if i % 2 else [0.0] for i in range(40)]
    (difference,) = paired_differences([first, other])
    assert (difference.n, difference.items) == (220, 40)
    assert difference.value == pytest.approx(100 / 220)
    width = difference.high - difference.low
    alone = paired_differences([[v for item in run for v in item] for run in (first, other)])[0]
    assert width > 2 * (alone.high - alone.low)


def test_every_other_run_is_compared_with_the_first():
    base = list(RNG.normal(size=30))
    differences = paired_differences([base, base, [v - 1 for v in base]])
    assert (differences[0].value, differences[0].low, differences[0].high) == (0, 0, 0) and not differences[0].clear
    assert differences[1].value == pytest.approx(-1) and differences[1].high == pytest.approx(-1)


@pytest.mark.parametrize(("first", "other", "value"), [(0.0, 0.0, 0.0), (0.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, 1.0, 0.0)])
def test_shares_that_all_changed_alike_are_not_certain(first, other, value):
    """Twenty coins that fell alike don't prove that all will: the exact interval of 20 of 20 begins at 0.832."""
    (difference,) = paired_differences([[first] * 20, [other] * 20])
    rare = 1 - 0.025 ** (1 / 20)
    ends = {0.0: (-rare, rare), 1.0: (1 - 2 * rare, 1.0), -1.0: (-1.0, 2 * rare - 1)}[value]
    assert difference.value == value and (difference.low, difference.high) == pytest.approx(ends)
    assert difference.clear == (value != 0)


def test_none_leaves_an_item_or_an_object_out():
    first = [[1.0, None], None, [None, None], [0.0, 0.0]]
    other = [[0.0, None], None, [None, None], [0.0, 1.0]]
    (difference,) = paired_differences([first, other])
    assert (difference.n, difference.items, difference.value) == (3, 2, 0.0)


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([[1.0]], "two or more"),
        ([[1.0, 2.0], [1.0]], "of 2, 1 items"),
        ([[1.0, None], [1.0, 2.0]], "1 of 2 items were scored in some"),
        ([[None], [None]], "no item was scored"),
    ],
)
def test_what_can_not_be_paired_is_refused(runs, says):
    with pytest.raises(ValueError, match=says):
        paired_differences(runs)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=30),
    st.integers(0, 1000),
)
def test_the_order_of_runs_only_turns_the_sign(pairs, seed):
    first, other = (list(values) for values in zip(*pairs, strict=True))
    (there,) = paired_differences([first, other], seed=seed, resamples=50)
    (back,) = paired_differences([other, first], seed=seed, resamples=50)
    assert there.value == pytest.approx(-back.value)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_resampled_sums_draw_the_same_clusters_for_every_column():
    columns = np.stack([np.arange(50.0), 2 * np.arange(50.0), np.ones(50)], 1)
    sums = resampled_sums(columns, seed=3, resamples=1000)
    assert sums.shape == (1000, 3)
    assert np.array_equal(2 * sums[:, 0], sums[:, 1]) and (sums[:, 2] == 50).all()
    assert sums[:, 0].mean() == pytest.approx(columns[:, 0].sum(), rel=0.02)


# --- which items are shared


def rows(*names: str, image: str = "same") -> list[ItemRow]:
    return [ItemRow(name, image) for name in names]


def test_shared_items_come_in_the_first_ones_order():
    tables = shared_items([rows("a", "b", "c"), rows("c", "a", "b")])
    assert [[row.key for row in table] for table in tables] == [["a", "b", "c"]] * 2


def test_different_items_are_refused_with_how_many_are_common():
    tables = [rows("a", "b", "c"), rows("b", "c", "d", "e")]
    with pytest.raises(ValueError, match="2 are common, of 3 and 4"):
        shared_items(tables)
    assert [[row.key for row in table] for table in shared_items(tables, common=True)] == [["b", "c"]] * 2


def test_a_part_of_the_items_is_not_the_same_items():
    with pytest.raises(ValueError, match="2 are common, of 3 and 2"):
        shared_items([rows("a", "b", "c"), rows("a", "b")])


def test_the_same_key_of_another_image_is_another_item():
    for common in (False, True):
        with pytest.raises(ValueError, match="0 are common"):
            shared_items([rows("a", "b"), rows("a", "b", image="other")], common)
