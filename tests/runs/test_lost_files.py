"""The training command makes lost files of a finished run again; a refused run leaves no files."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.inference.load import load_run
from ragaf_exp.report import write_report
from ragaf_exp.run import command_line
from ragaf_exp.runs import checkpoints as checkpoint
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.sample import main as sample
from ragaf_exp.training.trainer import Trainer

EMA = "checkpoints/{}/{:08d}/ema.safetensors"


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


LOST: dict[str, Callable[[Path], object]] = {
    "no metrics": lambda run: (run / "metrics.json").unlink(),
    "empty metrics": lambda run: (run / "metrics.json").write_text(""),
    "no status": lambda run: (run / "status.json").unlink(),
    "empty status": lambda run: (run / "status.json").write_text(""),
    "half a status": lambda run: (run / "status.json").write_text('{"sch'),
    "no checkpoints": lambda run: shutil.rmtree(run / "checkpoints"),
    "no stage 1": lambda run: shutil.rmtree(run / "checkpoints" / "coarse"),
    "no last checkpoint": lambda run: shutil.rmtree(run / "checkpoints" / "refine" / "00000009"),
    "an empty checkpoint": lambda run: (run / EMA.format("refine", 9)).write_bytes(b""),
    "a flipped bit": lambda run: _flip(run / EMA.format("coarse", 8)),
    "an empty tokenizer": lambda run: (run / "tokenizer.json").write_text(""),
    "no environment": lambda run: (run / "environment.json").unlink(),
    "an empty report": lambda run: (run / "report.html").write_text(""),
}


@pytest.mark.long
@pytest.mark.parametrize("lost", LOST)
def test_the_training_command_makes_it_again(lost, run_copy, finished, tiny, figures):
    LOST[lost](run_copy)
    folder = run(compose_config([*tiny, f"runs={run_copy.parents[1]}"]))
    assert folder.path == run_copy and folder.state["state"] == "done" and folder.state["trained"]
    for name in ("environment.json", "metrics.json", "report.html", "tokenizer.json"):
        assert (run_copy / name).stat().st_size
    for stage, step in (("coarse", 8), ("refine", 9)):
        assert (run_copy / EMA.format(stage, step)).read_bytes() == (finished / EMA.format(stage, step)).read_bytes()
    assert figures(run_copy) == pytest.approx(figures(finished), rel=1e-4, abs=1e-4)
    assert RunFolder.read(run_copy)[0].path == run_copy


def test_a_run_without_any_checkpoint_is_one_line(run_copy):
    shutil.rmtree(run_copy / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint of any stage; run its training command again"):
        load_run(*RunFolder.read(run_copy))


def test_a_config_edited_by_hand(run_copy, tiny, finished, caplog):
    path = run_copy / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["sampler"]["guidance"] = 7.0
    path.write_text(yaml.safe_dump(content))
    for read in (RunFolder.read, write_report):
        with pytest.raises(UserError, match="config.yaml: was changed since the run began"):
            read(run_copy)
    assert RunFolder.read(run_copy, edited=True)[1].sampler.guidance == 7
    caplog.set_level(logging.WARNING)
    run(compose_config([*tiny, f"runs={run_copy.parents[1]}"]))
    assert "written again" in caplog.text and RunFolder.read(run_copy)[1].sampler.guidance == 1
    content["sampler"]["guidance"], content["runs"] = 1.0, "/elsewhere"  # nothing that is computed
    path.write_text(yaml.safe_dump(content))
    assert RunFolder.read(run_copy)[1].runs == "/elsewhere"


def test_runs_of_earlier_versions_have_no_checksum_of_their_config(run_copy):
    state = json.loads((run_copy / "status.json").read_text())
    assert len(state.pop("config")) == 64
    (run_copy / "status.json").write_text(json.dumps(state))
    (run_copy / "config.yaml").write_text((run_copy / "config.yaml").read_text().replace("seed: 0", "seed: 1"))
    assert RunFolder.read(run_copy)[1].seed == 1


@pytest.mark.long
def test_a_checkpoint_too_many_goes_at_the_next_start(run_copy, tiny):
    stage = run_copy / "checkpoints" / "refine"
    newest = stage / "00000009"
    for step in (1, 2):  # a kill came between the rename and the pruning
        shutil.copytree(newest, stage / f"{step:08d}")
        state = json.loads((newest / "state.json").read_text())
        (stage / f"{step:08d}" / "state.json").write_text(json.dumps({**state, "step": step}))
    (stage / ".00000003.tmp").mkdir()
    RunFolder(run_copy)._write_status({"state": "running"})
    run(compose_config([*tiny, f"runs={run_copy.parents[1]}"]))
    assert sorted(place.name for place in stage.iterdir()) == ["00000006", "00000009"]


def test_pruning_counts_whole_checkpoints_alone(run_copy):
    checkpoints = run_copy / "checkpoints"
    (checkpoints / "refine" / "00000009" / "state.json").write_text("{")
    result = checkpoint.load_newest(checkpoints, "refine", parts=())
    checkpoint.prune(checkpoints, result, 1)
    assert result.step == 6 and checkpoint.newest_whole(checkpoints, "refine").name == "00000006"


# --- refused before the first step


@pytest.mark.parametrize("word", ["data.root=/nonexistent", "data.root={}", "stage=refine"])
def test_a_refused_run_leaves_no_folder(word, refused, run_copy, tiny, tmp_path, finished, cli):
    runs = run_copy.parents[1]
    (runs / "latest").symlink_to(run_copy.relative_to(runs))
    words = [w for w in tiny if not w.startswith(("data.", "name="))] + ["name=other", "data=folder", "data.size=32"]
    words = [w for w in tiny if not w.startswith("name=")] + ["name=other", word] if word.startswith("stage") else words
    before = sorted(map(str, runs.rglob("*")))
    refused(command_line, *words, word.format(tmp_path), f"runs={runs}")
    assert sorted(map(str, runs.rglob("*"))) == before
    drawing = finished / "samples" / "test" / "0000" / "sketch.png"
    assert cli(sample, f"run={runs / 'latest'}", f"sketch={drawing}", "prompt=x", f"out={tmp_path / 'out'}")[0] == 0


def test_a_refused_run_leaves_no_folder_of_runs(refused, tiny, tmp_path):
    words = [w for w in tiny if not w.startswith("data.")]
    refused(command_line, *words, "data=folder", "data.root=/nonexistent", f"runs={tmp_path / 'runs'}")
    assert not (tmp_path / "runs").exists()


def test_a_refusal_leaves_an_existing_folder_as_it_was(run_copy, tiny, monkeypatch):
    RunFolder(run_copy)._write_status({"state": "preempted"})
    monkeypatch.setattr("ragaf_exp.evaluation.readers.check_readers", _refuse)
    with pytest.raises(UserError, match="refused"):
        run(compose_config([*tiny, f"runs={run_copy.parents[1]}"]))
    assert (run_copy / "checkpoints").is_dir() and RunFolder(run_copy).state["state"] == "failed"


def _refuse(*args: object) -> None:
    raise UserError("refused")


@pytest.mark.long
def test_latest_is_the_newest_run_with_a_checkpoint(run_copy, tiny, monkeypatch):
    runs = run_copy.parents[1]
    (runs / "latest").symlink_to(run_copy.relative_to(runs))
    recorded = []
    step, save = Trainer.step, checkpoint.save

    def steps(self, *args):
        recorded.append(os.path.realpath(runs / "latest") == str(run_copy))
        return step(self, *args)

    monkeypatch.setattr(Trainer, "step", steps)
    cfg = compose_config([*tiny, f"runs={runs}", "seed=5"])
    monkeypatch.setattr("ragaf_exp.training.trainer.checkpoints.save", _refuse)
    with pytest.raises(UserError):
        run(cfg)
    assert recorded == [True] * 3 and RunFolder(runs / "latest").state["state"] == "done"
    monkeypatch.setattr("ragaf_exp.training.trainer.checkpoints.save", save)
    monkeypatch.setattr("ragaf_exp.evaluation.run.evaluate_run", _refuse)
    with pytest.raises(UserError):
        run(cfg)
    assert (runs / "latest").resolve().name != run_copy.name
    run(compose_config([*tiny, f"runs={runs}"]))  # it is finished already
    assert (runs / "latest").resolve() == run_copy
