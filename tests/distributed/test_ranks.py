"""Two processes on one machine: the same training as one with twice the micro-batch; the first alone writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ragaf_exp.config.compose import compose_config
from ragaf_exp.experiments.experiment import run
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.process

# what torchrun and accelerate launch do, with the imports once for all
LAUNCH = """
import os, shutil, socket, sys, traceback
import ragaf_exp.run
from ragaf_exp.experiments import experiment
from ragaf_exp.config.command_line import guarded

def launch(argv, count=2):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        if (child := os.fork()) == 0:
            env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({key: str(value) for key, value in env.items()})
            os.dup2(os.open(f"{place}/rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            sys.argv[1:] = argv
            status = 1
            try:
                guarded(ragaf_exp.run.command_line)
                status = 0
            except SystemExit as end:
                status = end.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

place, *argv = sys.argv[1:]
"""
TWICE = (
    LAUNCH
    + """
print(launch(argv), flush=True)
for stage in ("refine",):  # as if the processes had been killed after the step before the last checkpoint
    folder = next(os.path.join(base, stage) for base, names, _ in os.walk(place) if stage in names)
    shutil.move(os.path.join(folder, max(os.listdir(folder))), place + "/undisturbed")
os.remove(os.path.dirname(os.path.dirname(folder)) + "/status.json")
print(launch(argv), flush=True)
print(launch([*argv, "stage.batch=3"]), flush=True)
"""
)


@pytest.fixture(scope="module")
def story(tiny, tmp_path_factory) -> dict:
    """A run of two processes, continued from an earlier checkpoint; and the same with a batch they can't share."""
    place = tmp_path_factory.mktemp("two")
    taken = {"stage.coarse.steps": 3, "stage.refine.steps": 3, "stage.refine.region_steps": 2, "stage.log_every": 1,
             "stage.checkpoint_every": 2, "stage.validate_every": 4, "data.train": 24, "eval.test_items": 2,
             # half the usual rates: so few steps have no warm-up, and a full step enlarges rounding beyond comparison
             "stage.coarse.lr": 0.0015, "stage.refine.lr": 0.0005, "stage.refine.region_lr": 0.00075}  # fmt: skip
    words = [word for word in tiny if word.partition("=")[0] not in taken] + [f"{k}={v}" for k, v in taken.items()]
    done = subprocess.run([sys.executable, "-c", TWICE, str(place), *words, f"runs={place}/runs"], capture_output=True,
                          text=True, timeout=280)  # fmt: skip
    output = [(place / f"rank{rank}.txt").read_text() for rank in range(2)]
    assert done.returncode == 0, done.stderr
    (folder,) = [path.parent for path in place.glob("runs/tiny/*/checkpoints") if (path / "refine").exists()]
    return {
        "place": place,
        "words": words,
        "codes": [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")],
        "said": output,
        "folder": folder,
    }


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_evaluate_and_continue(story):
    assert story["codes"][:2] == [[0, 0], [0, 0]], story["said"]
    assert RunFolder(story["folder"]).state["state"] == "done"
    assert "continuing from step 4 of 5" in story["said"][0]


def test_only_the_first_process_writes_and_logs(story):
    result = rows(story["folder"])
    steps = [(row["stage"], row["step"]) for row in result if "loss" in row]
    assert steps == [*(("coarse", i) for i in (1, 2, 3)), *(("refine", i) for i in (1, 2, 3, 4, 5))]
    assert len([row for row in result if "validation" in row]) == 3
    assert "stage coarse" in story["said"][0] and "stage coarse" not in story["said"][1]


def test_a_continued_run_of_two_is_the_undisturbed_one_to_the_bit(story):
    again, before = story["folder"] / "checkpoints" / "refine" / "00000005", story["place"] / "undisturbed"
    assert len(list(before.iterdir())) == 4
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in before.iterdir())


def test_a_batch_that_processes_cant_share_is_one_line(story):
    assert story["codes"][2] == [2, 2]
    assert all("stage.batch=3: must be a multiple of the 2 processes" in output for output in story["said"])


def test_two_processes_train_to_the_loss_of_one(story, tmp_path):
    """One process takes both shares as one micro-batch."""
    folder = run(compose_config([*story["words"], f"runs={tmp_path}"])).path
    for one, two in zip(rows(folder), rows(story["folder"]), strict=True):
        assert (one["stage"], one["step"]) == (two["stage"], two["step"])
        losses = [name for name in one if name.startswith("loss")]
        assert [two[name] for name in losses] == pytest.approx([one[name] for name in losses], rel=1e-4)
    for stage in ("coarse", "refine"):
        one, two = (load_newest(place / "checkpoints", stage).model for place in (folder, story["folder"]))
        apart = np.mean([float((one[name] - two[name]).abs().mean()) for name in one])
        assert apart < 1e-4 and all(torch.isfinite(value).all() for value in two.values())
