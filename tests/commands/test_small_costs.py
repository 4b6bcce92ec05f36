"""Side costs of commands: compile time, library warnings, git's locks, keys of a preset."""

from __future__ import annotations

import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from ragaf_exp.commands import region_survey
from ragaf_exp.config import build as building
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resources import CONF
from ragaf_exp.runs import environment
from ragaf_exp.sweep import snapshot


@pytest.mark.long
def test_the_smoke_preset_goes_with_any_data():
    assert compose_config(["+experiment=smoke"]).data.train == 128
    for source in ("folder", "openmoji"):
        cfg = compose_config(["+experiment=smoke", f"data={source}", "data.root=photos"])
        assert cfg.data.root == "photos" and cfg.stage.coarse.steps == 12
    with pytest.raises(UserError, match=r"data\.train: unknown key"):
        compose_config(["+experiment=smoke", "data=folder", "data.train=3"])


@pytest.mark.parametrize("preset", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_a_preset_has_no_key_that_another_source_refuses(preset):
    assert compose_config([f"+experiment={preset}", "data=folder", "data.root=photos"]).data.root == "photos"


@pytest.mark.long
def test_a_survey_of_one_file_does_not_count_compiling(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "ring.png"), cv2.circle(np.full((64, 64), 255, np.uint8), (32, 32), 20, 0, 2))
    made, calls = building.build, []

    def slow_at_first(node, key):
        part = made(node, key)

        def call(value):
            calls.append(key)
            time.sleep(1.0 if calls.count(key) == 1 else 0.0)
            return part(value)

        return call

    region_survey.survey_folder(tmp_path, 64, [])  # compiled, whatever ran before
    monkeypatch.setattr(building, "build", slow_at_first)
    result, _ = region_survey.survey_folder(tmp_path, 64, [])
    assert result.counts == [2] and result.milliseconds < 900


@pytest.mark.parametrize("commit", [environment._commit, snapshot._commit])
def test_git_takes_no_locks(commit, monkeypatch):
    commands = []
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **kw: commands.append(command) or real(command, **kw))
    commit()
    assert commands and all(command[:2] == ["git", "--no-optional-locks"] for command in commands)


def test_more_workers_than_cores_print_nothing():
    code = "import ragaf_exp.data.loader; from torch.utils.data import DataLoader; DataLoader([1], num_workers=999)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert (ended.returncode, ended.stderr) == (0, "")
