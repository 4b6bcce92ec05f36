"""Several runs compared: refusals, missing runs, and tables that hold the runs' figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from report_run import dump, member
from test_report import Sources

from ragaf_exp.report import write_comparison
from ragaf_exp.report.__main__ import main
from ragaf_exp.report.compare.caveats import caveats
from ragaf_exp.report.compare.compare import Comparison, compare
from ragaf_exp.report.compare.runs import letter

A, B, C = "a" * 12, "b" * 12, "c" * 12


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three runs: the second a little better in every item, the third much, and with another seed."""
    member(tmp_path, A)
    member(tmp_path, B, 0.05, settings={"fusion.hidden": 32})
    member(tmp_path, C, 0.1, settings={"seed": 1}, facts={"seed": 1})
    return tmp_path / "study"


def by_name(comparison: Comparison) -> dict[str, list]:
    return {row.name: row.cells for row in comparison.rows}


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


def test_a_run_of_stage_1_next_to_one_of_both(tmp_path):
    a, b = member(tmp_path, A), member(tmp_path, B)
    metrics = {name: entry for name, entry in stored(b).items() if not name.startswith("stage1/")}
    dump(b / "metrics.json", {"schema": 1, "metrics": metrics})
    (b / "samples/test/0000/stage2.png").unlink()
    comparison = compare([str(a), str(b)])
    assert by_name(comparison)["stage1/ssim"][1] is None
    assert any("stage 2 of A, stage 1 of B" in note for note in caveats(comparison))
    write_comparison([a, b])


def test_clear_differences_are_counted(sweep):
    assert any(note.startswith("5 of 8 differences") for note in caveats(compare([str(sweep)])))


def test_figures_that_one_run_could_not_measure_are_reported(tmp_path):
    a, b = member(tmp_path, A), member(tmp_path, B)
    metrics = stored(b)
    del metrics["fd_embedded"]
    dump(b / "metrics.json", {"schema": 1, "metrics": metrics, "unavailable": {"fd_embedded": "no weights"}})
    comparison = compare([str(a), str(b)])
    assert by_name(comparison)["fd_embedded"][1] is None
    assert "Not measured in B: FD, embedded. no weights" in caveats(comparison)


# --- which runs


def test_the_first_run_is_the_reference_of_the_others(sweep):
    table = compare([str(sweep / C), str(sweep)])
    assert [m.path.name for m in table.members] == [C, A, B] and [m.letter for m in table.members] == ["A", "B", "C"]
    assert by_name(table)["ssim"][1].difference.value == pytest.approx(-0.1)


def test_a_folder_of_sweeps_and_a_link(sweep):
    (sweep.parent / "latest").symlink_to(sweep / B)
    comparison = compare([str(sweep.parent), str(sweep.parent / "latest")])
    assert [m.path.name for m in comparison.members] == [A, B, C], "each once"
    assert compare([str(sweep.parent / "latest"), str(sweep)]).members[0].path.name == B


def test_runs_without_figures_are_marked(sweep):
    (sweep / ("d" * 12)).mkdir()
    failed = member(sweep.parent, "e" * 12)
    (failed / "metrics.json").unlink()
    dump(failed / "status.json", {"schema": 1, "state": "failed", "error": "out of <memory>"})
    comparison = compare([str(sweep)])
    assert len(comparison.members) == 3 and [m.letter for m in comparison.missing] == ["D", "E"]
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


# --- settings, and the command line


def test_settings_that_differ(sweep):
    comparison = compare([str(sweep)])
    assert dict(comparison.settings) == {"seed": ["0", "0", "1"], "fusion.hidden": ["64", "32", "64"]}
    assert comparison.environment == []


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
    page = tmp_path / "none" / "p.html"
    assert cli(main, f"runs=[{sweep}]", f"out={page}")[0] == 0 and page.is_file(), "missing folders are made"
    refused(main, f"runs=[{sweep}]", f"out={page / 'p.html'}", says=("p.html", "a file stands where a folder is needed"))


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
