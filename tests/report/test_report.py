"""The report of a whole run folder: what it shows, and that it needs no other file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_run import build, dump, item_rows, log, metrics

from eval.difficulty import group_figures
from ragaf_exp.report import write_report
from ragaf_exp.report.__main__ import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build(tmp_path)


class Sources(HTMLParser):
    """Every address in the page, and every element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.elements: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]


def test_a_whole_run(run):
    path = write_report(run)
    page = path.read_text()
    assert path == run.resolve() / "report.html"
    for shown in (
        "0.951",
        "0.412",
        "0.876",
        "0.169",
        "21.34 dB",
        "something new",
        "3.250",
        "demo / 0123456789ab",
    ):
        assert shown in page
    assert "text gives 2.50 × the loss" in page
    assert "python -m ragaf_exp.run seed=3" in page and "weights ema" in page
    assert page.count("<svg") == 5, "two loss charts, two of condition usage, one of the fusion"
    assert "refine-100" in page and "refine-9" not in page
    assert "is not there" not in page


def test_it_needs_no_other_file(run):
    page = write_report(run).read_text()
    sources = Sources(page)
    assert all(address.startswith(("data:image/", "#")) for address in sources.addresses)
    assert not {"script", "link", "iframe", "object"} & set(sources.elements)
    assert not re.search(r"@import|url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_it_is_the_same_every_time(run):
    assert write_report(run).read_bytes() == write_report(run, run / "again.html").read_bytes()


def test_wrong_colours_are_marked(run):
    page = write_report(run).read_text()
    assert re.search(r'<span class="ok"[^>]*>a red star</span>', page)
    assert re.search(r'<span class="bad"[^>]*>a blue star</span> <em>orange</em>', page)
    assert "1 of 2 colours right" in page


def test_what_a_stranger_wrote_is_text(run):
    scenes = json.loads((run / "samples/test/index.json").read_text())
    scenes[0] |= {"caption": "<script>alert(1)</script> & $x_{", "objects": []}
    dump(run / "samples/test/index.json", scenes)
    lines = [{"stage": '"><script>', "step": 1, "loss": 1.0, "loss_$a<script>": 2.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(run).read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "script" not in Sources(page).elements


def test_a_run_of_stage_1_has_one_column(run):
    dump(run / "metrics.json", {"schema": 1, "metrics": {"sketch_f1": metrics()["sketch_f1"]}})
    coarse = [row for row in log() if row["stage"] == "coarse"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in coarse))
    (run / "samples/test/one/stage2.png").unlink()
    page = write_report(run).read_text()
    assert ">Stage 1<" in page and ">Stage 2<" not in page


@pytest.mark.long
def test_command_line(run, tmp_path):
    def call(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "ragaf_exp.report", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    good = call(f"runs=[{run}]", f"out={tmp_path}/page.html")
    assert good.returncode == 0 and (tmp_path / "page.html").exists(), good.stderr
    bad = call("run=nowhere")
    assert bad.returncode == 2 and len(bad.stderr.strip().splitlines()) == 1 and "nowhere" in bad.stderr


def test_options_of_comparisons_are_not_for_one_run(run, refused):
    refused(main, says=("run=?", "missing"))
    refused(main, f"run={run}", "tables=there", says=("tables=", "comparisons"))
    refused(main, f"run={run}", "items=common", says=("items=", "comparisons"))
    refused(main, f"run={run}", "items=all", says=("items=all", "same or common"))


def test_what_could_not_be_measured_says_why(run):
    content = {"schema": 1, "metrics": metrics(), "unavailable": {"fid": "no weights <here>"}}
    dump(run / "metrics.json", content | {"items": {"used": 200, "skipped": 3}})
    page = write_report(run).read_text()
    assert "not measured: no weights &lt;here&gt;" in page and ">FID" in page
    assert "200 items used, 3 items skipped" in page


def test_a_warning_is_shown_next_to_its_figure(run):
    few = metrics()["psnr"] | {"warning": "200 samples are few"}
    content = {"fd_embedded": few, "stage1/fd_embedded": few}
    dump(run / "metrics.json", {"schema": 1, "metrics": content})
    page = write_report(run).read_text()
    row = re.search(r"<th scope=\"row\">FD, embedded.*?</th>", page, re.S)
    assert row and "200 samples are few" in row[0]
    assert page.count("200 samples are few") == 1, "said once for both stages, and no condition of the measurement"


def test_figures_by_difficulty(run):
    rows = item_rows(range(30), 0.0, "drawn")
    groups = group_figures(rows, {"ssim": True, "binding_accuracy": True}, resamples=50)
    dump(run / "metrics.json", {"schema": 1, "metrics": metrics(), "groups": groups})
    page = write_report(run).read_text()
    table = page[page.index("By difficulty") : page.index("Unseen test items")]
    assert "Sketch density" in table and "0.0 % – 9.0 %" in table and "Regions of the sketch" in table
    low = groups["stroke_density"]["groups"][0]["metrics"]["ssim"]
    assert f"{low['value']:.3f}" in table and f"{low['ci95'][0]:.3f} – {low['ci95'][1]:.3f}" in table
    assert table.count("<tbody>") == 5


def test_groups_without_a_range(run):
    """For example those of eval.metrics.binding.binding_splits."""
    group = {"group": "heldout", "items": 9, "metrics": {"leak_rate": metrics()["psnr"]}}
    groups = {"pairs": {"without": 2, "groups": [group]}}
    dump(run / "metrics.json", {"schema": 1, "metrics": metrics(), "groups": groups})
    page = write_report(run).read_text()
    assert "Colour-shape pairs · 2 items without" in page and "heldout" in page
