"""Several runs compared: what is refused, what is marked missing, and that the tables hold what the runs measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from report_run import dump, member
from test_report import Sources

from eval.items import add_values, figure_of, read_items, write_items
from ragaf_exp.errors import UserError
from ragaf_exp.report import write_comparison
from ragaf_exp.report.__main__ import main
from ragaf_exp.report.compare import Comparison, compare
from ragaf_exp.report.members import letter
from ragaf_exp.report.notes import notes

A, B, C = "a" * 12, "b" * 12, "c" * 12


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three runs: the second a little better in every item, the third much, and with another seed."""
    member(tmp_path, A)
    member(tmp_path, B, 0.05, settings={"fusion.hidden": 32})
    member(tmp_path, C, 0.1, settings={"seed": 1}, facts={"seed": 1})
    return tmp_path / "study"


def by_name(found: Comparison) -> dict[str, list]:
    return {row.name: row.cells for row in found.rows}


def stored(run: Path) -> dict[str, dict]:
    return json.loads((run / "metrics.json").read_text())["metrics"]


# --- figures and differences


def test_figures_are_those_of_metrics_json(sweep):
    rows = by_name(compare([str(sweep)]))
    for place, name in enumerate((A, B, C)):
        metrics = stored(sweep / name)
        assert set(rows) == set(metrics)
        assert all(rows[key][place].entry == entry for key, entry in metrics.items())


def test_differences_are_paired_by_item(sweep):
    rows = by_name(compare([str(sweep)]))
    assert all(cells[0].difference is None and cells[0].gap is None for cells in rows.values())
    shift = rows["ssim"][1].difference
    assert (shift.value, shift.low, shift.high) == pytest.approx((0.05, 0.05, 0.05)) and shift.clear
    assert shift.items == 20 and not rows["stage1/ssim"][2].difference.clear
    bound = rows["binding_accuracy"]
    assert not bound[1].difference.clear and bound[2].difference.clear and bound[2].difference.n == 40
    whole = rows["fd_embedded"][1]
    assert whole.difference is None and whole.gap == pytest.approx(-0.05)


def test_the_page_shows_them(sweep):
    page = write_comparison([sweep])[0].read_text()
    assert "3 runs compared" in page and "study/bbbbbbbbbbbb" in page and "fusion.hidden=32" in page
    assert '<div class="difference up">+0.050 <small>[+0.050, +0.050]</small></div>' in page
    assert '<div class="difference ">0.000 <small>[−0.168, +0.168]</small></div>' in page
    assert '<div class="difference ">−0.05</div>' in page
    for entry in stored(sweep / B).values():
        digits = 2 if entry["value"] > 2 else 3
        assert f"{entry['value']:.{digits}f}" in page
    assert "seeds 0, 1" in page and "over 20 common items" in page
    assert page.count("<svg") == 3, "binding, sketch F1 and SSIM are headlines"


def test_it_needs_no_other_file_and_is_the_same_every_time(sweep):
    first = write_comparison([sweep])
    before = [path.read_bytes() for path in first]
    assert [path.read_bytes() for path in write_comparison([sweep])] == before
    page = first[0].read_text()
    sources = Sources(page)
    assert sources.addresses and all(address.startswith(("data:image/", "#")) for address in sources.addresses)
    assert not {"script", "link", "iframe", "object"} & set(sources.elements)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert str(sweep.parent) not in page, "nothing of the host"


def test_the_same_items_stand_side_by_side(sweep):
    index = sweep / C / "samples/test/index.json"
    dump(index, [{"key": "other", "caption": "", "dir": "0000"}, *json.loads(index.read_text())])
    page = write_comparison([sweep])[0].read_text()
    grid = page[page.index("The same items") : page.index("Settings that differ")]
    assert grid.count("<tr>") == 2 and grid.count("<img") == 5 and "other" not in grid
    assert grid.count("0 of 1 colours") == 2 and grid.count("1 of 1 colours") == 1
    assert 'title="a red star: blue"' in grid


def test_a_run_of_stage_1_beside_one_of_both(tmp_path):
    a, b = member(tmp_path, A), member(tmp_path, B)
    metrics = {name: entry for name, entry in stored(b).items() if not name.startswith("stage1/")}
    dump(b / "metrics.json", {"schema": 1, "metrics": metrics})
    (b / "samples/test/0000/stage2.png").unlink()
    found = compare([str(a), str(b)])
    assert by_name(found)["stage1/ssim"][1] is None
    assert any("stage 2 of A, stage 1 of B" in note for note in notes(found))
    write_comparison([a, b])


def test_clear_differences_are_counted(sweep):
    assert any(note.startswith("5 of 8 differences") for note in notes(compare([str(sweep)])))


def test_what_one_could_not_measure_is_told(tmp_path):
    a, b = member(tmp_path, A), member(tmp_path, B)
    metrics = stored(b)
    del metrics["fd_embedded"]
    dump(b / "metrics.json", {"schema": 1, "metrics": metrics, "unavailable": {"fd_embedded": "no weights"}})
    found = compare([str(a), str(b)])
    assert by_name(found)["fd_embedded"][1] is None
    assert "Not measured in B: FD, embedded. no weights" in notes(found)


# --- which runs


def test_the_first_named_is_what_others_are_held_against(sweep):
    found = compare([str(sweep / C), str(sweep)])
    assert [m.path.name for m in found.members] == [C, A, B] and [m.letter for m in found.members] == ["A", "B", "C"]
    assert by_name(found)["ssim"][1].difference.value == pytest.approx(-0.1)


def test_a_folder_of_sweeps_and_a_link(sweep):
    (sweep.parent / "latest").symlink_to(sweep / B)
    found = compare([str(sweep.parent), str(sweep.parent / "latest")])
    assert [m.path.name for m in found.members] == [A, B, C], "each once"
    assert compare([str(sweep.parent / "latest"), str(sweep)]).members[0].path.name == B


def test_runs_without_figures_are_marked(sweep):
    (sweep / ("d" * 12)).mkdir()
    failed = member(sweep.parent, "e" * 12)
    (failed / "metrics.json").unlink()
    dump(failed / "status.json", {"schema": 1, "state": "failed", "error": "out of <memory>"})
    found = compare([str(sweep)])
    assert len(found.members) == 3 and [m.letter for m in found.missing] == ["D", "E"]
    page, table, latex = (path.read_text() for path in write_comparison([sweep]))
    assert "config.yaml is not there" in page and "state failed: out of &lt;memory&gt;" in page
    assert "D: study/dddddddddddd, missing" in table and "D: study/dddddddddddd, missing" in latex


def test_fewer_than_two_are_no_comparison(sweep, refused):
    for name in (B, C):
        (sweep / name / "metrics.json").unlink()
    refused(main, f"runs=[{sweep}]", says=("1 run with figures", "needs two", "no metrics.json"))
    refused(main, f"runs=[{sweep / A},{sweep / A}]", says=("1 run with figures",))
    refused(main, f"runs=[{sweep / A},nowhere]", says=("no such run folder: nowhere",))
    (sweep.parent / "empty").mkdir()
    refused(main, f"runs=[{sweep / A},{sweep.parent / 'empty'}]", says=("no run folder",))
    assert not list(sweep.rglob("comparison*"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.json", "{"),
        ("metrics.json", '{"schema": 1, "metrics": {"ssim": {"value": "high"}}}'),
        ("config.yaml", "{"),
        ("status.json", "[]"),
        ("items.jsonl", "{}\n"),
        ("metrics.jsonl", "nonsense\n{}\n"),
        ("samples/test/index.json", "3"),
        ("samples/test/0000/stage2.png", "no picture"),
    ],
)
def test_a_damaged_member_is_named(sweep, refused, file, content):
    (sweep / B / file).write_text(content)
    refused(main, f"runs=[{sweep}]", says=(B, Path(file).name))
    assert not list(sweep.rglob("comparison*"))


def test_items_of_another_evaluation_are_refused(sweep, refused):
    metrics = stored(sweep / B)
    metrics["ssim"]["value"] += 0.01
    dump(sweep / B / "metrics.json", {"schema": 1, "metrics": metrics})
    refused(main, f"runs=[{sweep}]", says=("items.jsonl", "ssim is not that of metrics.json", "python -m eval"))


def test_letters_go_on_behind_z():
    assert [letter(i) for i in (0, 25, 26, 27, 52, 702)] == ["A", "Z", "AA", "AB", "BA", "AAA"]


# --- what is refused


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"facts": {"weights": "raw"}}, ("weights ema and raw", "evaluate both alike")),
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
    """As regions do, with their settings: such a figure is shown, but not held against the first."""
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
    """B and C are each like A as far as A can tell, which has no items of its own."""
    runs = [member(tmp_path, A, items=False), member(tmp_path, B), member(tmp_path, C, keys=range(20, 40))]
    with pytest.raises(UserError, match="0 are common"):
        compare([str(run) for run in runs])


# --- common items, and what can't be paired


def test_common_items_on_demand(tmp_path):
    a = member(tmp_path, A)
    b = member(tmp_path, B, 0.05, keys=range(8, 20), whole={"reference_checksum": "cd", "n_reference": 12})
    found = compare([str(a), str(b)], common=True)
    rows = by_name(found)
    assert found.items == 12 and rows["ssim"][0].entry["n"] == 12 and rows["binding_accuracy"][0].entry["n"] == 24
    assert rows["ssim"][0].entry["value"] != stored(a)["ssim"]["value"]
    assert rows["ssim"][1].entry["value"] == pytest.approx(stored(b)["ssim"]["value"])
    assert rows["ssim"][1].difference.value == pytest.approx(0.05) and rows["ssim"][1].difference.items == 12
    assert "fd_embedded" not in rows
    told = " ".join(notes(found))
    assert "12 items that all runs share" in told and "FD, embedded" in told
    page, *_ = write_comparison([a, b], common=True)
    assert "items=common" in page.read_text()


def test_common_items_of_equal_runs_change_nothing(sweep):
    every, common = compare([str(sweep)]), compare([str(sweep)], common=True)
    assert every.rows == common.rows and not common.common


def test_nothing_in_common_is_refused_all_the_same(tmp_path, refused):
    a, b = member(tmp_path, A), member(tmp_path, B, keys=range(20, 40))
    refused(main, f"runs=[{a},{b}]", "items=common", says=("0 are common, of 20 and 20",))
    c = member(tmp_path, C, items=False)
    refused(main, f"runs=[{a},{c}]", "items=common", says=("items=common", "items.jsonl is missing", "python -m eval"))


def test_without_items_there_is_no_interval(tmp_path):
    runs = [member(tmp_path, A), member(tmp_path, B, 0.05, items=False), member(tmp_path, C, 0.1)]
    found = compare([str(run) for run in runs])
    _, b, c = by_name(found)["ssim"]
    assert b.difference is None and b.gap == pytest.approx(0.05) and c.difference.value == pytest.approx(0.1)
    assert any(note.startswith("B has no items.jsonl") for note in notes(found))


@pytest.mark.parametrize("items", [True, False])
def test_figures_against_other_sketches_are_not_compared(tmp_path, items):
    runs = [member(tmp_path, A), member(tmp_path, B, 0.05, sketch="thin", items=items, settings={"sketch.thin": True})]
    found = compare([str(run) for run in runs])
    rows = by_name(found)
    assert rows["sketch_f1"][1].note == "against other sketches"
    assert rows["sketch_f1"][1].difference is None and rows["sketch_f1"][1].gap is None
    assert not rows["ssim"][1].note and (rows["ssim"][1].difference is not None) == items
    assert any("B followed other sketches than A" in note for note in notes(found))
    assert "against other sketches" in write_comparison(runs)[0].read_text()


def test_a_figure_that_was_measured_differently_is_not_compared(tmp_path):
    a, b = member(tmp_path, A), member(tmp_path, B)
    metrics = stored(b)
    metrics["ssim"]["window"] = 11
    dump(b / "metrics.json", {"schema": 1, "metrics": metrics})
    rows = by_name(compare([str(a), str(b)]))
    assert rows["ssim"][1].note == "measured differently: window not stated and 11"
    assert rows["ssim"][1].difference is None and rows["sketch_f1"][1].difference is not None


# --- settings, and the command line


def test_settings_that_differ(sweep):
    found = compare([str(sweep)])
    assert dict(found.settings) == {"seed": ["0", "0", "1"], "fusion.hidden": ["64", "32", "64"]}
    assert found.environment == []


def test_places_and_names_are_no_settings(tmp_path):
    places = {"runs": "/elsewhere", "name": "other", "cache.gigabytes": 1.0}
    runs = [member(tmp_path, A), member(tmp_path, B, settings=places)]
    assert compare([str(run) for run in runs]).settings == []


def test_command_line(sweep, cli, refused, tmp_path):
    status, out, err = cli(main, f"runs=[{sweep / A}, {sweep / B}]")
    assert status == 0, err
    assert out.split() == [str(sweep / f"comparison.{kind}") for kind in ("html", "md", "tex")]
    page, tables = tmp_path / "page.html", tmp_path / "paper" / "tables"
    status, out, _ = cli(main, f"run={sweep}", f"out={page}", f"tables={tables}")
    assert status == 0 and out.split() == [str(page), str(tables / "page.md"), str(tables / "page.tex")]
    assert all(Path(path).is_file() for path in out.split())
    refused(main, f"runs=[{sweep}]", f"out={tmp_path / 'none' / 'p.html'}", says=("p.html",))


def test_what_a_stranger_wrote_is_text(tmp_path):
    evil = "<script>alert(1)</script>"
    runs = [member(tmp_path, A), member(tmp_path, B)]
    for run in runs:
        metrics = stored(run)
        metrics[evil] = metrics["ssim"] | {"note": evil}
        dump(run / "metrics.json", {"schema": 1, "metrics": metrics})
        (run / "items.jsonl").unlink()
        dump(run / "environment.json", {"commit": evil + run.name})
        dump(run / "samples/test/index.json", [{"key": evil, "caption": evil, "dir": "0000"}])
    page, table, _ = (path.read_text() for path in write_comparison(runs))
    assert "&lt;script&gt;" in page and "script" not in Sources(page).elements
    assert "<script>" not in table
