"""Sweeps on this machine, end to end, with members that take no time: queued, reported, retried, cancelled."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweep_checkout import STUBBED, call, make_checkout, sweep

from ragaf_exp.sweep import search
from ragaf_exp.sweep.ledger import Record

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("sweep") / "checkout")


def question(checkout: Path, name: str, seeds: str) -> Path:
    path = checkout / "sweeps" / f"{name}.yaml"
    path.write_text(f"overrides: [optim.warmup=5]\ngrid:\n  seed: {seeds}\n")
    return path


def states(checkout: Path, name: str) -> dict[str, dict]:
    output = sweep(checkout, "status", f"runs/{name}", "format=json")
    return {m["differs"].get("seed", "0"): m for m in json.loads(output.stdout)["members"]} | {"status": output.returncode}


def attempts(member: dict) -> list[str]:
    return (Path(member["path"]) / "attempts").read_text().splitlines()


def test_from_submission_to_retry(checkout):
    question(checkout, "first", "[0, 1, 2]")
    over = sweep(checkout, "submit", "sweeps/first.yaml", "launcher=local")
    assert over.returncode == 1, over.stderr  # members failed
    assert "3 of 3 members queued" in over.stdout and "3 members: " in over.stdout
    result = states(checkout, "first")
    assert result["status"] == 1
    assert [result[seed]["state"] for seed in "012"] == ["done", "failed", "failed"]
    assert result["1"]["error"] == "the loss is nan" and "status 7" in result["2"]["error"]
    again = sweep(checkout, "retry", "runs/first", "launcher=local")
    assert again.returncode == 1 and "2 of 3 members queued" in again.stdout
    result = states(checkout, "first")
    assert [len(attempts(result[seed])) for seed in "012"] == [1, 2, 2]  # what is done is not run again
    assert attempts(result["0"]) == ["original 5 1"]


def test_edits_after_submission_change_nothing(checkout, tmp_path):
    """The job's own command, run from the checkout after code and YAML were edited."""
    path = question(checkout, "frozen", "[0]")
    waiting = sweep(checkout, "submit", path, "launcher=local", "wait=false")
    assert waiting.returncode == 0, waiting.stderr
    member = _finished(checkout, "frozen")["0"]
    (Path(member["path"]) / "status.json").unlink()  # as if it had not begun
    job = checkout / "runs" / "frozen" / ".sweep" / "jobs" / "1.json"
    edited = {checkout / STUBBED: ("original", "edited"),
              checkout / "conf" / "optim" / "adamw.yaml": ("warmup: 50", "warmup: 51"), path: ("=5", "=6")}  # fmt: skip
    before = {file: file.read_text() for file in edited}
    try:
        for file, (old, new) in edited.items():
            file.write_text(before[file].replace(old, new))
        command = [sys.executable, json.loads(job.read_text())["snapshot"], "member", job, "0"]
        ended = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=100)
    finally:
        for file, text in before.items():
            file.write_text(text)
    assert ended.returncode == 0, ended.stderr
    assert [line.rpartition(" ")[0] for line in attempts(member)] == ["original 5"] * 2


def test_snapshots_are_shared_and_small(checkout):
    snapshots = [p for p in (checkout / "runs" / ".code").iterdir() if not p.name.startswith(".")]
    assert len(snapshots) <= 2  # by content: sweeps/ itself was edited between them
    size = sum(p.stat().st_size for p in snapshots[0].rglob("*") if p.is_file() and p.suffix != ".pyc")
    assert size < 5_000_000


def test_cancel_and_two_submissions(checkout):
    path = question(checkout, "slow", "[3, 0]")
    sweep(checkout, "submit", path, "launcher=local", "wait=false", "processes=1")
    second = sweep(checkout, "submit", path, "launcher=local", "wait=false")
    assert "nothing to queue" in second.stdout, second.stdout + second.stderr
    for _ in range(100):
        if (result := states(checkout, "slow"))["3"]["state"] == "running":
            break
        time.sleep(0.1)
    assert result["3"]["left_seconds"] == pytest.approx(3.0) and result["0"]["state"] == "queued"
    assert sweep(checkout, "cancel", "runs/slow").stdout.startswith("cancelled 2 members")
    result = _finished(checkout, "slow")
    assert [result[seed]["state"] for seed in "30"] == ["cancelled", "cancelled"]


def _finished(checkout: Path, name: str) -> dict:
    for _ in range(100):
        result = states(checkout, name)
        if all(result[key]["state"] not in ("queued", "starting", "running") for key in result if key != "status"):
            return result
        time.sleep(0.2)
    raise AssertionError(result)


def test_html_and_text(checkout):
    text = sweep(checkout, "status", "runs/first")
    assert "the loss is nan" in text.stdout and "seed" in text.stdout
    out = checkout / "status.html"
    assert sweep(checkout, "status", "runs/first", "format=html", f"out={out}").returncode == 1
    page = out.read_text()
    assert "the loss is nan" in page and page.count("<tr") == 4 and "http-equiv" in page


def test_the_report_marks_what_is_missing(checkout):
    output = sweep(checkout, "report", "runs/first")
    assert output.returncode == 0, output.stderr
    page = (checkout / "runs" / "first" / "sweep.html").read_text()
    assert page.count('class="missing"') == 2 and "1 of 3" in page and "1.000 [0.900, 1.100]" in page


def test_search_counts_failed_members_as_failed_trials(checkout):
    pytest.importorskip("optuna")
    path = checkout / "sweeps" / "rates2.yaml"
    path.write_text("search:\n  space:\n    stage.refine.recolour: {low: 0.0, high: 1.0}\n    seed: [0, 1]\n")
    first = sweep(checkout, "search", path, "trials=3", "launcher=local", "processes=3")
    again = sweep(checkout, "search", path, "trials=5", "launcher=local", "processes=2")  # goes on with the study
    assert "5 trials measured" in again.stdout or "failed\n" in again.stdout, again.stderr
    measured, failed = map(int, re.search(r"(\d+) trials measured, (\d+) failed", again.stdout).groups())
    assert measured + failed == 5 and failed == (first.stdout + again.stdout).count(": failed: the loss is nan")
    assert again.returncode == (1 if failed else 0)
    assert sweep(checkout, "search", path, "trials=5", "launcher=local").stdout.startswith(f"{measured} trials measured")


def test_a_search_submits_a_point_once_and_fails_what_is_refused(checkout, tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    base, study, going = [f"runs={tmp_path}", "name=points"], optuna.create_study(), {}
    for batch in (8, 8, 9):
        study.enqueue_trial({"stage.batch": batch})
        trial = study.ask()
        trial.suggest_categorical("stage.batch", [8, 9])
        search._start(study, going, [*base, "stage.accumulate=8"], trial)
    assert list(going) == [0, 1] and going[0].hash == going[1].hash
    assert [trial.state.name for trial in study.get_trials()] == ["RUNNING", "RUNNING", "FAIL"]
    assert len(search._unsubmitted(Record(going[0].home), going)) == 1


def test_a_search_whose_process_was_killed_goes_on(checkout):
    """No finished trial is run again, none is drawn twice, and what ran meanwhile is taken up."""
    optuna = pytest.importorskip("optuna")
    path = checkout / "sweeps" / "rates3.yaml"
    path.write_text("search:\n  space:\n    stage.refine.recolour: {low: 0.0, high: 1.0}\n    optim.clip: [1, 2]\n")
    words = ["search", path, "trials=3", "launcher=local", "processes=1"]
    command = [sys.executable, "-m", "ragaf_exp.sweep", *map(str, words)]
    with subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, text=True) as driver:
        assert ": done: " in driver.stdout.readline()
        assert "another process runs this search" in sweep(checkout, *words).stderr
        driver.kill()
    home = checkout / "runs" / "rates3"
    backend = optuna.storages.journal.JournalFileBackend(str(home / ".sweep" / "study.log"))
    study = optuna.load_study(study_name="rates3", storage=optuna.storages.JournalStorage(backend))
    study.ask()  # as if killed while it chose the values
    again = sweep(checkout, *words)
    assert again.returncode == 0 and "3 trials measured, 0 failed" in again.stdout, again.stderr
    assert again.stdout.count(": done: ") <= 2
    runs = sorted(home.glob("*/attempts"))
    assert len(runs) == 3 and all(len(run.read_text().splitlines()) == 1 for run in runs)


@pytest.mark.parametrize(("words", "says"), [
    (["search", "fusion"], "has no search"), (["search", "rates", "trials=0"], "trials=0"),
    (["submit", "sweeps/fushion.yaml"], "no such sweep"), (["submit"], "name a sweep"),
    (["submit", "fusion", "launcher=ssh"], "launcher=ssh"), (["submit", "fusion", "fusion=lerned"], "lerned"),
    (["submit", "fusion", "processes=0", "launcher=local"], "processes=0"), (["status", "runs/none"], "no such folder"),
    (["status", "conf"], "no sweep"), (["retry", "conf"], "no sweep"), (["sumbit"], "known are"),
    (["submit", "fusion", "seeed=1"], "seeed"),
])  # fmt: skip
def test_mistakes_are_one_line(refused, words, says):
    from ragaf_exp.sweep.__main__ import main

    refused(main, *words, says=(says,))


def test_a_plain_multirun_can_be_looked_at(checkout):
    made = call(checkout, "ragaf_exp.run", "-m", "name=plain", "seed=0,4")
    assert made.returncode == 0, made.stderr
    assert [m["state"] for m in json.loads(sweep(checkout, "status", "runs/plain", "format=json").stdout)["members"]] \
        == ["done", "done"]  # fmt: skip
