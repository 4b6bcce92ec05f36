"""The report of a run folder that is partial or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_run import build, dump

from ragaf_exp.core.errors import UserError
from ragaf_exp.report import write_report

OPTIONAL = ("metrics.json", "metrics.jsonl", "samples/test/index.json", "samples/fusion.json")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build(tmp_path)


@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_files_are_left_out_with_a_note(run, name):
    (run / name).unlink()
    assert f"{name} is not there" in write_report(run).read_text()


def test_a_run_that_only_began(run):
    for name in OPTIONAL:
        (run / name).unlink()
    dump(run / "status.json", {"schema": 1, "state": "failed", "error": "the loss became NaN at step 7"})
    page = write_report(run).read_text()
    assert "the loss became NaN at step 7" in page and "failed" in page


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "status.json"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(UserError, match=name):
        write_report(run)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{"), ("metrics.json", "[]"),
        ("metrics.json", '{"schema": 1, "metrics": {"a": {}}}'),
        ("metrics.json", '{"schema": 1, "metrics": {"a": {"value": 1, "ci95": 3}}}'),
        ("metrics.json", '{"schema": "1", "metrics": {}}'), ("metrics.json", '{"schema": 1, "metrics": {}, "groups": [1]}'),
        ("metrics.json", '{"schema": 1, "metrics": {}, "groups": {"regions": {"without": 0, "groups": [{"from": 1}]}}}'),
        ("metrics.json", '{"schema": 1, "metrics": {}, "unavailable": {"fid": 3}}'),
        ("metrics.json", '{"schema": 1, "metrics": {}, "unavailable": ["fid"]}'),
        ("metrics.json", '{"schema": 1, "metrics": {}, "items": {"used": "all"}}'),
        ("metrics.json", '{"schema": 1, "metrics": {"fid": {"value": null}}}'),
        ("metrics.json", '{"schema": 2, "metrics": {}}'), ("environment.json", "[]"), ("status.json", "{"),
        ("metrics.jsonl", "nonsense\n{}\n"), ("metrics.jsonl", '{"step": 1}\n'),
        ("samples/test/index.json", "{}"), ("samples/test/index.json", '[{"key": "a"}]'),
        ("samples/test/index.json", '[{"key": "a", "caption": "", "dir": "../../.."}]'),
        ("samples/fusion.json", '{"timesteps": [1], "sketch": [1, 2], "text": [1]}'),
        ("samples/fusion.json", '{"timesteps": 3, "sketch": 3, "text": 3}'),
        ("samples/test/one/truth.png", "no picture"), ("samples/refine-100.png", ""),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(run, name, content):
    (run / name).write_text(content)
    with pytest.raises(UserError) as error:
        write_report(run)
    assert Path(name).name in str(error.value) and "\n" not in str(error.value)
    assert not (run / "report.html").exists()


def test_a_line_cut_short_by_a_kill_is_no_damage(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"stage": "refine", "st')
    assert "0.951" in write_report(run).read_text()
