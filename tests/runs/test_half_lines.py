"""A power cut costs metrics.jsonl and items.jsonl a line, never the run."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from report_run import build, member

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.report import write_report
from ragaf_exp.report.compare.compare import compare
from ragaf_exp.runs import metrics_jsonl
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.process

A, B = "a" * 12, "b" * 12
LINE = {"stage": "coarse", "step": 1, "loss": 0.5}


@pytest.mark.parametrize("left", [b'{"stage": "coa', b"{", b"\0" * 4096, b'{"stage": "coarse", "step": 2}', b"\xff\xfe"])
@pytest.mark.parametrize("before", [[], [LINE]])
def test_append_cuts_to_the_last_whole_line(left, before, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in before) + left)
    metrics_jsonl.append(path, {**LINE, "step": 3})
    metrics_jsonl.append(path, {**LINE, "step": 4})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [*(r["step"] for r in before), 3, 4]


def test_unreadable_lines_are_numbered_and_dropped_by_the_next_rewind(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    glued = json.dumps(LINE)[:-5] + json.dumps(LINE)  # as earlier versions left it
    validation = json.dumps({**LINE, "validation": {}})
    path.write_text("\n".join([json.dumps(LINE), glued, "[]", '{"step": 1}', validation, '{"st']))
    lines, unreadable = metrics_jsonl.read(path)
    assert [line.row["step"] for line in lines] == [1, 1] and unreadable == [2, 3, 4]
    assert metrics_jsonl.validated(path, "coarse", 1) and not metrics_jsonl.validated(path, "refine", 1)
    metrics_jsonl.rewind(path, "coarse", 1)
    assert "lines 2, 3, 4 can't be read" in caplog.text
    assert metrics_jsonl.read(path)[1] == [] and path.read_text().endswith("\n")


def test_the_log_is_synced_before_the_checkpoint_that_it_leads_to(tiny, tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("ragaf_exp.training.trainer.metrics_jsonl.keep", lambda path: order.append(path.name))
    monkeypatch.setattr("ragaf_exp.training.trainer.checkpoints.save", lambda *args: order.append("checkpoint"))
    with pytest.raises(UserError):  # no checkpoint to evaluate
        run(compose_config([*tiny, f"runs={tmp_path}", "stage=coarse"]))
    assert order and order == ["metrics.jsonl", "checkpoint"] * (len(order) // 2)


def test_a_power_cut_after_the_last_checkpoint(run_copy, tiny, finished):
    """The last line is a validation; the checkpoint of its step is whole."""
    log = run_copy / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-30])
    status = json.loads((run_copy / "status.json").read_text())
    (run_copy / "status.json").write_text(json.dumps({**status, "state": "running"}))
    cfg = compose_config([*tiny, f"runs={run_copy.parents[1]}"])
    for _ in range(2):
        assert run(cfg).state["state"] == "done"
    steps = [(row["stage"], row["step"]) for row in map(json.loads, log.read_text().splitlines())]
    whole = (finished / "metrics.jsonl").read_text().splitlines()
    assert steps == [(row["stage"], row["step"]) for row in map(json.loads, whole)]


def test_the_report_leaves_unreadable_lines_out_and_says_so(tmp_path, caplog):
    folder = build(tmp_path)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write("nonsense\n" + json.dumps({"stage": "refine", "step": 999, "loss": 1.0}) + "\n")
    caplog.set_level(logging.WARNING)
    page = write_report(folder).read_text()
    assert "can&#39;t be read" in page and "metrics.jsonl" in caplog.text


def _cut_items(folder: Path) -> None:
    path = folder / "items.jsonl"
    path.write_bytes(path.read_bytes()[:-30])


def test_items_that_lack_a_line_are_compared_on_those_that_are_shared(tmp_path, caplog):
    runs = [str(member(tmp_path, key)) for key in (A, B)]
    whole = compare(runs).items
    _cut_items(Path(runs[1]))
    with pytest.raises(UserError, match="items=common"):
        compare(runs)
    assert compare(runs, common=True).items == whole - 1
    assert "items.jsonl" in caplog.text and "skipped" in caplog.text


def test_a_shared_stage_1_with_half_a_line(run_copy, tmp_path):
    from ragaf_exp.experiments import shared_stage

    with open(run_copy / "metrics.jsonl", "a") as file:
        file.write('nonsense\n{"stage": "coa')
    place = RunFolder(run_copy)
    place.is_main = False  # nothing but its files is of interest
    folder = RunFolder(Path(shutil.copytree(run_copy, tmp_path / "member")))
    shutil.rmtree(folder.checkpoints / "coarse")
    folder._write_status({"state": "running"})
    shared_stage._link_all("coarse", place, folder)
    assert metrics_jsonl.read(folder.curves)[1] == [] and folder.curves.read_text().endswith("\n")
