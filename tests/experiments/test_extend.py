"""More steps for a finished run: named, and continued from its last checkpoints."""

from __future__ import annotations

import json
import shutil

import pytest

from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.extend import finished_sibling
from ragaf_exp.experiments.training import Training
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.process


def started(words: list[str], runs) -> RunFolder:
    """A run as far as before its first step."""
    cfg = compose_config([*words, f"runs={runs}"])
    folder = RunFolder.create(cfg)
    try:
        Training(cfg, folder)
    finally:
        folder.release()
    return folder


def steps_of(folder: RunFolder) -> dict[str, list[str]]:
    return {stage.name: sorted(path.name for path in stage.iterdir()) for stage in folder.checkpoints.glob("*")}


def test_extend_is_no_part_of_a_runs_hash(tiny):
    assert config_hash(compose_config([*tiny, "extend=true"])) == config_hash(compose_config(tiny))


def test_stage_2_continues_from_its_last_checkpoint(tiny, run_copy, caplog):
    runs = run_copy.parents[1]
    with caplog.at_level("INFO"):
        folder = run(compose_config([*tiny, f"runs={runs}", "stage.refine.steps=8", "extend=true"]))
    assert folder.path != run_copy and folder.state["extended"] and folder.state["state"] == "done"
    output = [r.getMessage() for r in caplog.records]
    assert any("resumes from step 6" in line and "to step 8" in line for line in output)
    assert any("learning rate now follows the schedule of 8 steps" in line for line in output)
    assert any("stage coarse: copied from" in line for line in output)
    for part in ("model", "ema"):
        ours, theirs = (path / "checkpoints" / "coarse" / "00000008" / f"{part}.safetensors"
                        for path in (folder.path, run_copy))  # fmt: skip
        assert ours.read_bytes() == theirs.read_bytes()
    rows = [json.loads(line) for line in folder.curves.read_text().splitlines()]
    refine = [row["step"] for row in rows if row["stage"] == "refine" and "loss" in row]
    assert refine == sorted(set(refine)) and refine[-1] == 11
    old = [json.loads(line) for line in (run_copy / "metrics.jsonl").read_text().splitlines()]
    assert rows[: len(old)] == old, "the finished run's lines, then the new ones"


def test_a_sibling_with_fewer_steps_is_named(tiny, run_copy, caplog):
    with caplog.at_level("INFO"):
        folder = started([*tiny, "stage.coarse.steps=10"], run_copy.parents[1])
    (line,) = [r.getMessage() for r in caplog.records if "extend=true" in r.getMessage()]
    assert str(run_copy) in line and "stage.coarse.steps=8, here 10" in line and not steps_of(folder)


def test_more_steps_of_stage_1_train_stage_2_from_the_start(tiny, run_copy, caplog):
    with caplog.at_level("INFO"):
        folder = started([*tiny, "stage.coarse.steps=10", "extend=true"], run_copy.parents[1])
    assert steps_of(folder) == {"coarse": ["00000008"]}
    assert any("stage refine: trains from step 0" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("other", ["stage.coarse.steps=7", "seed=1", "stage.batch=8"])
def test_other_runs_are_no_siblings(other, tiny, run_copy):
    folder = RunFolder.create(compose_config([*tiny, f"runs={run_copy.parents[1]}", other]))
    folder.release()
    assert finished_sibling(folder.path) is None
    with pytest.raises(UserError, match="extend=true: no finished run"):
        started([*tiny, other, "extend=true"], run_copy.parents[1])


def test_an_unfinished_sibling_is_passed_over(tiny, run_copy):
    status = json.loads((run_copy / "status.json").read_text())
    (run_copy / "status.json").write_text(json.dumps({**status, "trained": False}))
    with pytest.raises(UserError, match="no finished run"):
        started([*tiny, "stage.refine.steps=8", "extend=true"], run_copy.parents[1])


def test_a_copy_that_was_cut_short_is_made_again(tiny, run_copy):
    words = [*tiny, "stage.refine.steps=8"]
    folder = started([*words, "extend=true"], run_copy.parents[1])
    state = json.loads((folder.path / "status.json").read_text())
    del state["extended"]
    (folder.path / "status.json").write_text(json.dumps(state))
    shutil.rmtree(folder.checkpoints / "refine")
    assert set(steps_of(started(words, run_copy.parents[1]))) == {"coarse", "refine"}


def test_a_run_that_has_begun_from_step_0_is_not_extended(tiny, run_copy):
    words = [*tiny, "stage.refine.steps=8"]
    folder = started(words, run_copy.parents[1])
    shutil.copytree(run_copy / "checkpoints" / "coarse", folder.checkpoints / "coarse")
    with pytest.raises(UserError, match="has begun from step 0"):
        started([*words, "extend=true"], run_copy.parents[1])
