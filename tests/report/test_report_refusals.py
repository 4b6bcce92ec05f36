"""Runs and figures that may be compared: refusals, common items, and figures that are only shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_run import dump, member

from eval.items import add_values, figure_of, read_items, write_items
from ragaf_exp.core.errors import UserError
from ragaf_exp.report import write_comparison
from ragaf_exp.report.__main__ import main
from ragaf_exp.report.compare.caveats import caveats
from ragaf_exp.report.compare.compare import Comparison, compare

A, B, C = "a" * 12, "b" * 12, "c" * 12


def by_name(comparison: Comparison) -> dict[str, list]:
    return {row.name: row.cells for row in comparison.rows}


def stored(run: Path) -> dict[str, dict]:
    return json.loads((run / "metrics.json").read_text())["metrics"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"facts": {"weights": "raw"}}, ("weights ema and raw", "evaluate both in the same way")),
        ({"facts": {"resolution": 32}}, ("resolution 64 and 32",)),
        ({"facts": {"split": "val"}}, ("split test and val",)),
        ({"facts": {"reference": "0123"}}, ("reference not stated and 0123",)),
        ({"facts": {"n_reference": 9}}, ("n_reference not stated and 9",)),
        ({"facts": {"reference_checksum": "ab" * 32}}, ("reference_checksum not stated and abababababab…",)),
        ({"keys": range(10)}, ("n 20 and 10", "different items: 10 are common, of 20 and 10", "items=common")),
        ({"keys": range(20, 40)}, ("different items: 0 are common, of 20 and 20",)),
        ({"keys": range(20, 40), "settings": {"data.seed": 5}}, ("0 are common", "data.seed 0 and 5")),
        ({"items": False, "settings": {"data.seed": 5}}, ("data.seed 0 and 5",)),
        ({"items": False, "settings": {"data.size": 32}}, ("data.size 64 and 32",)),
    ],
)
def test_runs_that_were_not_measured_alike_are_refused(change, says, tmp_path, refused):
    a, b = member(tmp_path, A), member(tmp_path, B, 0.05, **change)
    line = refused(main, f"runs=[{a},{b}]", says=("study/aaaaaaaaaaaa (A)", "study/bbbbbbbbbbbb (B)", *says))
    assert "can't be compared" in line and not list(tmp_path.rglob("comparison*"))


def test_what_differs_in_some_figures_names_them(tmp_path, refused):
    a, b = member(tmp_path, A), member(tmp_path, B)
    metrics = stored(b)
    metrics["fd_embedded"]["n"] = 7
    dump(b / "metrics.json", {"schema": 1, "metrics": metrics})
    refused(main, f"runs=[{a},{b}]", says=("n 20 and 7 (FD, embedded)",))


def test_the_same_reference_by_another_name_is_the_same(tmp_path):
    names = ("test images", "/mnt/test")
    runs = [
        member(tmp_path, key, facts={"reference": name, "reference_checksum": "ab"})
        for key, name in zip((A, B), names, strict=True)
    ]
    assert by_name(compare([str(run) for run in runs]))["ssim"][1].difference is not None


def test_counts_of_objects_may_differ_on_the_same_items(tmp_path):
    """Numbers of regions differ with their settings: such a figure is shown, but not compared with the first."""
    a, b = member(tmp_path, A), member(tmp_path, B)
    rows = read_items(b / "items.jsonl")
    add_values(rows, "binding_accuracy", [[1.0]] * 20)
    write_items(b / "items.jsonl", rows)
    metrics = stored(b)
    metrics["binding_accuracy"] |= figure_of(rows, "binding_accuracy", higher_is_better=True)
    dump(b / "metrics.json", {"schema": 1, "metrics": metrics})
    rows = by_name(compare([str(a), str(b)]))
    assert rows["binding_accuracy"][1].note == "measured differently: n 40 and 20"
    assert rows["ssim"][1].difference is not None


def test_training_on_more_data_is_no_other_test_set(tmp_path):
    for items in (True, False):
        settings = {"data.train": 100, "data.train_repeat_share": 0.5}
        runs = [member(tmp_path / str(items), A), member(tmp_path / str(items), B, items=items, settings=settings)]
        assert compare([str(run) for run in runs]).rows


def test_a_later_pair_that_differs_is_refused(tmp_path):
    """B and C each agree with A, which has no items.jsonl, but not with each other."""
    runs = [member(tmp_path, A, items=False), member(tmp_path, B), member(tmp_path, C, keys=range(20, 40))]
    with pytest.raises(UserError, match="0 are common"):
        compare([str(run) for run in runs])


# --- common items, and what can't be paired


def test_common_items_on_demand(tmp_path):
    a = member(tmp_path, A)
    b = member(tmp_path, B, 0.05, keys=range(8, 20), whole={"reference_checksum": "cd", "n_reference": 12})
    comparison = compare([str(a), str(b)], common=True)
    rows = by_name(comparison)
    assert comparison.items == 12 and rows["ssim"][0].entry["n"] == 12 and rows["binding_accuracy"][0].entry["n"] == 24
    assert rows["ssim"][0].entry["value"] != stored(a)["ssim"]["value"]
    assert rows["ssim"][1].entry["value"] == pytest.approx(stored(b)["ssim"]["value"])
    assert rows["ssim"][1].difference.value == pytest.approx(0.05) and rows["ssim"][1].difference.items == 12
    assert "fd_embedded" not in rows
    notes = " ".join(caveats(comparison))
    assert "12 common items of all runs" in notes and "FD, embedded" in notes
    page, *_ = write_comparison([a, b], common=True)
    assert "items=common" in page.read_text()


def test_common_items_of_equal_runs_change_nothing(tmp_path):
    runs = [str(member(tmp_path, A)), str(member(tmp_path, B, 0.05))]
    every, common = compare(runs), compare(runs, common=True)
    assert every.rows == common.rows and not common.common


def test_nothing_in_common_is_refused_all_the_same(tmp_path, refused):
    a, b = member(tmp_path, A), member(tmp_path, B, keys=range(20, 40))
    refused(main, f"runs=[{a},{b}]", "items=common", says=("0 are common, of 20 and 20",))
    c = member(tmp_path, C, items=False)
    refused(main, f"runs=[{a},{c}]", "items=common", says=("items=common", "items.jsonl is missing", "python -m eval"))


def test_without_items_there_is_no_interval(tmp_path):
    runs = [member(tmp_path, A), member(tmp_path, B, 0.05, items=False), member(tmp_path, C, 0.1)]
    comparison = compare([str(run) for run in runs])
    _, b, c = by_name(comparison)["ssim"]
    assert b.difference is None and b.gap == pytest.approx(0.05) and c.difference.value == pytest.approx(0.1)
    assert any(note.startswith("B has no items.jsonl") for note in caveats(comparison))


@pytest.mark.parametrize("items", [True, False])
def test_figures_against_other_sketches_are_not_compared(tmp_path, items):
    runs = [member(tmp_path, A), member(tmp_path, B, 0.05, sketch="thin", items=items, settings={"sketch.thin": True})]
    comparison = compare([str(run) for run in runs])
    rows = by_name(comparison)
    assert rows["sketch_f1"][1].note == "against other sketches"
    assert rows["sketch_f1"][1].difference is None and rows["sketch_f1"][1].gap is None
    assert not rows["ssim"][1].note and (rows["ssim"][1].difference is not None) == items
    assert any("B used other sketches than A" in note for note in caveats(comparison))
    assert "against other sketches" in write_comparison(runs)[0].read_text()


def test_a_figure_that_was_measured_differently_is_not_compared(tmp_path):
    a, b = member(tmp_path, A), member(tmp_path, B)
    metrics = stored(b)
    metrics["ssim"]["window"] = 11
    dump(b / "metrics.json", {"schema": 1, "metrics": metrics})
    rows = by_name(compare([str(a), str(b)]))
    assert rows["ssim"][1].note == "measured differently: window not stated and 11"
    assert rows["ssim"][1].difference is None and rows["sketch_f1"][1].difference is not None
