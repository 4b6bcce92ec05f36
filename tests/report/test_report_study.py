"""The report of a study: runs of a member are one row, intervals hold seeds and items, differences are paired."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_run import member

from eval.statistics.crossed import Scores, difference, mean, ratio
from ragaf_exp.report.__main__ import main
from ragaf_exp.report.compare.runs import read_members
from ragaf_exp.report.study.members import group, training_seconds, training_steps
from ragaf_exp.report.study.page import study_tables

LOG = [
    {"stage": "coarse", "step": 10, "loss": 1.0, "rate": 2.0},
    {"stage": "coarse", "step": 10, "validation": {"binding_accuracy": 0.1, "right": 1.0}},
    {"stage": "refine", "step": 5, "loss": 1.0, "rate": 5.0},
    {"stage": "refine", "step": 25, "loss": 1.0, "rate": 4.0},
    {"stage": "refine", "step": 25, "validation": {"binding_accuracy": 0.8, "right": 1.0}},
]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """full with three seeds, baseline with two, another member with one; full binds every object from seed 0 on."""
    runs = [("full", 0, 0.1), ("full", 1, 0.12), ("full", 2, 0.14), ("baseline", 0, 0.0), ("baseline", 1, 0.02),
            ("graph_none", 0, 0.05)]  # fmt: skip
    for i, (name, seed, shift) in enumerate(runs):
        settings = {"study.member": name, "seed": seed, "ragaf.width": {"full": 128, "baseline": 64}.get(name, 32)}
        folder = member(tmp_path, f"{i:012x}", shift, settings=settings, facts={"seed": seed})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LOG))
    return tmp_path / "study"


def test_seeds_of_a_member_are_one_row_and_full_comes_first(study):
    groups = group(read_members([str(study)]))
    assert [(g.name, g.seeds) for g in groups] == [("full", [0, 1, 2]), ("baseline", [0, 1]), ("graph_none", [0])]


def test_runs_that_differ_in_more_than_the_seed_stay_apart(study):
    member(study.parent, "f" * 12, settings={"study.member": "full", "seed": 3, "fusion.hidden": 32})
    assert [g.name for g in group(read_members([str(study)]))].count("full") == 2


def test_differences_are_of_shared_seeds(study):
    tables = study_tables(group(read_members([str(study)])))
    assert [table.title for table in tables] == ["Figures", "Differences to full", "Differences to baseline"]
    assert [of.name for of, _ in tables[1].rows] == ["baseline", "graph_none"]
    by_member = {of.name: cells for of, cells in tables[1].rows}
    f1 = [cells[1] for cells in (by_member["baseline"], by_member["graph_none"])]
    assert (f1[0].seeds, f1[1].seeds) == (2, 1) and f1[0].value == pytest.approx(-0.1) and f1[0].clear
    assert f1[1].value == pytest.approx(-0.05)
    bound = by_member["baseline"][0]
    assert bound.n == 80 and bound.items == 20 and -0.5 < bound.value < -0.2 and bound.clear


def test_the_command_writes_page_tables_and_pictures(study, cli):
    status, out, err = cli(main, f"runs={study}")
    assert status == 0, err
    written = [Path(line) for line in out.split()]
    assert [p.name for p in written] == ["comparison.html", "comparison.md", "comparison.png", "comparison-curves.png"]
    page, text = written[0].read_text(), written[1].read_text()
    assert "3 members, 6 runs" in page
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert re.match(r"\| full \| 1\.000 .* \| 3 \| 11 s \| – \|$", lines[2]), lines[2]
    assert any(re.match(r"\| baseline \| \*\*-0\.3\d\d\*\* ", line) for line in lines), text
    assert "Training took 11 s for full and 11 s for baseline" in text and page.count("<svg") == 1


def test_a_member_without_figures_is_named_missing(study, cli):
    folder = study / ("e" * 12)
    folder.mkdir()
    status, out, _ = cli(main, f"runs={study}")
    assert status == 0 and "Missing: study/eeeeeeeeeeee" in (study / "comparison.md").read_text().replace("\\", "")


def test_one_member_is_no_study(study, refused, tmp_path):
    alone = member(tmp_path / "alone", settings={"study.member": "full"})
    other = member(tmp_path / "alone", "1" * 12, settings={"study.member": "full", "seed": 1}, facts={"seed": 1})
    refused(main, f"runs=[{alone},{other}]", says=("1 member with figures",))


def test_items_that_differ_are_refused(study, refused):
    member(study.parent, "f" * 12, keys=range(5, 25), settings={"study.member": "x", "ragaf.width": 16})
    refused(main, f"runs={study}", says=("can't be compared",))


def test_time_and_steps_run_on_over_stages():
    assert training_seconds(LOG) == [5.0, 5.0, 6.0, 11.0, 11.0]
    assert training_steps(LOG) == [10, 10, 15, 35, 35]


# --- intervals


def made(values: np.ndarray, seeds: tuple[int, ...] | None = None) -> Scores:
    """One value for each seed (S) and item (I)."""
    keys = tuple(f"k{i}" for i in range(values.shape[1]))
    return Scores(seeds or tuple(range(len(values))), keys, values, np.ones_like(values))


@given(st.integers(1, 4), st.integers(2, 30), st.integers(0, 10**6))
def test_a_member_does_not_differ_from_itself(seeds, items, number):
    values = made(np.random.default_rng(number).random((seeds, items)))
    estimate = difference(values, values, resamples=50)
    assert estimate.value == 0 and estimate.low <= 0 <= estimate.high and not estimate.clear
    assert mean(values, resamples=50).value == pytest.approx(values.sums.mean())


def test_seeds_that_disagree_widen_the_interval_and_one_seed_hides_it():
    rng = np.random.default_rng(0)
    items = rng.random(200)
    spread = made(items + np.array([[-0.2], [0.0], [0.2]]))
    agreed = made(items + np.zeros((3, 1)))
    widths = [mean(s).high - mean(s).low for s in (spread, agreed, made(spread.sums[:1], (0,)))]
    assert widths[0] > 3 * widths[1] and widths[2] == pytest.approx(widths[1], rel=0.2)


def test_pairing_by_seed_and_item_takes_away_what_both_share():
    rng = np.random.default_rng(1)
    hard = rng.random((3, 1)) + rng.random(100)
    low, high = made(hard), made(hard + 0.05 + 0.01 * rng.random((3, 100)))
    estimate = difference(high, low)
    assert estimate.clear and estimate.high - estimate.low < 0.01 and estimate.value == pytest.approx(0.055, abs=0.005)


def test_its_interval_covers_the_truth_about_as_often_as_it_says():
    """Two models of 8 seeds each, whose true difference is 0: seeds and items both vary."""
    hits, trials = 0, 200
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        both = [made(rng.normal(0, 0.1, (8, 1)) + rng.normal(0, 0.3, (8, 60))) for _ in range(2)]
        estimate = difference(*both, resamples=200)
        hits += estimate.low <= 0 <= estimate.high
    assert 0.85 <= hits / trials <= 0.99


def test_a_ratio_and_where_there_is_none():
    low, high = made(np.tile([0.0, 0.0, 1.0, 0.0], (2, 10))), made(np.tile([1.0, 0.0, 1.0, 1.0], (2, 10)))
    assert ratio(low, high).value == pytest.approx(1 / 3) and ratio(high, made(np.zeros((2, 40)))) is None
    assert difference(low, made(high.sums, (5, 6))) is None, "no seed is common"


def test_all_alike_is_not_certainty():
    estimate = mean(made(np.ones((3, 20))))
    assert estimate.value == 1 and estimate.low == pytest.approx(0.025 ** (1 / 20)) and estimate.high == 1
