"""kill -9 in both stages and in the middle of a checkpoint write, a damaged checkpoint, and the undisturbed run's bytes."""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_files import rows, tensors

from ragaf_exp.config.compose import compose_config
from ragaf_exp.experiments.experiment import run
from ragaf_exp.run import command_line
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.process

SEED = 20240607  # of the moments of the kills
DIES_IN_A_WRITE = """
import os, signal
from ragaf_exp.config.command_line import guarded
from ragaf_exp.run import command_line
from ragaf_exp.runs import checkpoints

write, seen = checkpoints.write_json, []

def write_json(path, content):
    seen.append(content["stage"])
    if seen.count("refine") == 2:
        os.kill(os.getpid(), signal.SIGKILL)  # the tensors are written, what makes them a checkpoint isn't
    write(path, content)

checkpoints.write_json = write_json
guarded(command_line)
"""


def start(arguments: list[str], errors: Path, code: str | None = None) -> subprocess.Popen:
    how = ["-c", code] if code else ["-m", "ragaf_exp.run"]
    with open(errors, "w") as file:
        return subprocess.Popen([sys.executable, *how, *arguments], stdout=subprocess.DEVNULL, stderr=file)


def kill_in(
    process: subprocess.Popen, folder: Path, stage: str, step: int, delay: float, saved: bool = False
) -> None:  # fmt: skip
    """kill -9, `delay` seconds after the stage has logged a step, or saved it; lines of the process before don't count."""
    log = folder / "metrics.jsonl"
    before = log.stat().st_ino if log.exists() else None
    for _ in range(60_000):
        rewound = log.exists() and log.stat().st_ino != before
        whole = not saved or (folder / "checkpoints" / stage / f"{step:08d}").exists()
        if whole and rewound and any(row["stage"] == stage and row["step"] >= step for row in rows(folder)):
            break
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def story(tiny, finished, tmp_path_factory) -> dict:
    """One run, killed three times and damaged once; what it said on the way."""
    place = tmp_path_factory.mktemp("killed")
    folder = place / "runs" / "tiny" / finished.name
    arguments, errors = [*tiny, f"runs={place / 'runs'}"], place / "errors.txt"
    moments = random.Random(SEED)
    output = {"folder": folder, "arguments": arguments}

    kill_in(start(arguments, errors), folder, "coarse", moments.choice([2, 4, 6]), moments.uniform(0, 0.3))
    output["after coarse"] = json.loads((folder / "status.json").read_text())

    assert start(arguments, errors, DIES_IN_A_WRITE).wait() == -signal.SIGKILL, errors.read_text()
    output["in a write"] = sorted(p.name for p in (folder / "checkpoints" / "refine").iterdir())
    output["second start"] = errors.read_text()

    kill_in(start(arguments, errors), folder, "refine", 6, moments.uniform(0, 0.3), saved=True)
    output["third start"] = errors.read_text()
    *_, output["damaged"] = sorted(p for p in (folder / "checkpoints" / "refine").iterdir() if p.name.isdigit())
    model = output["damaged"] / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])

    output["exit"] = start(arguments, errors).wait()
    output["last start"] = errors.read_text()
    return output


def test_the_kills_hit_what_they_were_meant_for(story):
    assert story["after coarse"]["state"] == "running"
    assert story["in a write"] == [".00000006.tmp", "00000003"]
    assert "continuing from step" in story["third start"] and story["damaged"].name in ("00000006", "00000009")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(story):
    assert str(story["damaged"]) in story["last start"] and "falling back" in story["last start"]
    before = int(story["damaged"].name) - 3
    assert f"stage refine: continuing from step {before} of 9" in story["last start"]


def test_it_ends_as_the_undisturbed_run_to_the_byte(story, finished, figures):
    assert story["exit"] == 0, story["last start"]
    folder = story["folder"]
    assert RunFolder(folder).state["state"] == "done"
    assert tensors(folder) == tensors(finished) and len(tensors(folder)) == 12
    assert rows(folder) == rows(finished)
    assert figures(folder) == pytest.approx(figures(finished), rel=1e-6)
    for name in ("samples/test/0000/stage2.png", "samples/refine-000009.png", "samples/fusion.json", "tokenizer.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert not list(folder.rglob("*.tmp"))


def test_a_finished_run_says_so_at_once(story, cli, caplog):
    before = {p: p.stat().st_mtime_ns for p in story["folder"].rglob("*") if p.is_file()}
    with caplog.at_level(logging.INFO):
        status, out, err = cli(command_line, *story["arguments"])
    assert status == 0 and "already finished" in caplog.text and str(story["folder"]) in caplog.text
    assert "sketch_f1" in out and "report.html" in out and "stage coarse" not in err
    assert {p: p.stat().st_mtime_ns for p in story["folder"].rglob("*") if p.is_file()} == before


def test_a_kill_between_the_last_figure_and_the_report(run_copy, tiny):
    """The run is done, its report isn't there: the same command writes it."""
    (run_copy / "report.html").unlink()
    cfg = compose_config([*tiny, f"runs={run_copy.parents[1]}"])
    assert run(cfg).path == run_copy and (run_copy / "report.html").exists()


def test_what_a_kill_in_a_write_left_is_removed(run_copy, tiny):
    left = run_copy / ".status.json.4711.tmp"
    left.write_text("{")
    run(compose_config([*tiny, f"runs={run_copy.parents[1]}"]))
    assert not left.exists()


@pytest.mark.parametrize("removed", ["metrics.json", "samples"])
def test_a_kill_during_evaluation(removed, run_copy, tiny, finished, figures):
    """Trained, not yet evaluated: nothing is trained again, and the figures are the same."""
    if removed == "metrics.json":
        (run_copy / "metrics.json").unlink()
    else:
        for picture in (run_copy / "samples" / "test").rglob("*.png"):
            picture.unlink()
    folder = RunFolder(run_copy)
    folder.status("running")
    before = tensors(run_copy), rows(run_copy)
    assert run(compose_config([*tiny, f"runs={run_copy.parents[1]}"])).state["state"] == "done"
    assert (tensors(run_copy), rows(run_copy)) == before
    assert figures(run_copy) == pytest.approx(figures(finished), rel=1e-6)
    assert (run_copy / "samples/test/0000/stage2.png").exists()
