"""An export from a stranger runs no code, reads no other files, and ends with one line where it is damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ragaf_exp.core.errors import UserError
from ragaf_exp.export.networks import WEIGHTS
from ragaf_exp.export.pipeline import RagafPipeline

pytestmark = pytest.mark.long


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    return shutil.copytree(exported, tmp_path / "export")


def changed(folder: Path, change: Any, stage: str = "refine") -> None:
    path = folder / stage / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(folder: Path, *says: str) -> None:
    with pytest.raises(UserError) as caught:
        RagafPipeline.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    for text in says:
        assert text in str(caught.value), str(caught.value)


def test_code_in_the_folder_does_not_run(copy):
    for name in ("pipeline.py", "coarse/coarse.py", "refine/modeling.py", "coarse/RagafStage.py"):
        (copy / name).write_text(f"open({str(copy / 'ran')!r}, 'w').close()\n")
    index = json.loads((copy / "model_index.json").read_text())
    index |= {"coarse": ["pipeline", "Evil"], "_class_name": ["os", "system"], "unet": ["subprocess", "Popen"]}
    (copy / "model_index.json").write_text(json.dumps(index))
    RagafPipeline.from_pretrained(copy)
    assert not (copy / "ran").exists()


@pytest.mark.parametrize("target", ["os.system", "subprocess.Popen", "ragaf_exp.core.files.write_text", "builtins.eval"])
def test_no_target_outside_the_package_is_built(target, copy):
    changed(copy, lambda c: c["run_config"]["codec"].update(_target_=target))
    refused(copy, "codec")


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "$\\{oc.env:HOME}"])
def test_nothing_is_interpolated(value, copy):
    changed(copy, lambda c: c["run_config"].update(name=value))
    if value.startswith("${"):
        refused(copy, "interpolation")


def test_paths_in_the_config_are_refused(copy, tmp_path):
    (tmp_path / "secret.pth").write_bytes(b"x")
    target = "ragaf_exp.sketch.pidinet.PiDiNet"
    changed(copy, lambda c: c["run_config"].update(sketch={"_target_": target, "weights": str(tmp_path / "secret.pth")}))
    refused(copy)


@pytest.mark.parametrize("inside", ["..", "../..", "/etc", "coarse/../../.."])
def test_sources_outside_the_folder_are_refused(inside, copy):
    changed(copy, lambda c: c.update(sources={"codec": {"inside": inside}}))
    refused(copy, "is outside the export's folder")


def test_a_source_of_a_stranger_is_not_fetched(copy):
    changed(copy, lambda c: c.update(sources={"codec": {"name": "evil/repo"}}))
    refused(copy, "sources={'evil/repo'")


DAMAGES = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "model_index.json: missing"),
    "index": (lambda f: (f / "model_index.json").write_text("[1"), "model_index.json: damaged"),
    "index kind": (lambda f: (f / "model_index.json").write_text("[]"), "model_index.json: damaged"),
    "no stages": (lambda f: (f / "model_index.json").write_text("{}"), "names no stage"),
    "no config": (lambda f: (f / "refine/config.json").unlink(), "refine/config.json: missing"),
    "config": (lambda f: (f / "refine/config.json").write_text('{"stage": '), "config.json: damaged"),
    "config keys": (lambda f: (f / "refine/config.json").write_text('{"a": 1}'), "no config of a RagafStage"),
    "newer": (lambda f: changed(f, lambda c: c.update(format=2)), "newer than this version's 1; update ragaf_exp"),
    "type": (lambda f: changed(f, lambda c: c.update(tokenizer=3)), "tokenizer is no str"),
    "stage": (lambda f: changed(f, lambda c: c.update(stage="third")), "must be one of coarse, refine"),
    "precision": (lambda f: changed(f, lambda c: c.update(precision="int4")), "precision=int4"),
    "tokenizer": (lambda f: changed(f, lambda c: c.update(tokenizer="{}")), "damaged"),
    "no weights": (lambda f: (f / "refine" / WEIGHTS).unlink(), "missing; the export is incomplete"),
    "half weights": (lambda f: truncated(f / "refine" / WEIGHTS), "damaged"),
    "other weights": (lambda f: shutil.copy(f / "coarse" / WEIGHTS, f / "refine"), "does not fit"),
    "link": (lambda f: linked(f / "refine/config.json"), "a symbolic link"),
    "widths": (lambda f: changed(f, lambda c: c["run_config"]["ragaf"].update(width=64)), "does not fit its config.json"),
}


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def linked(path: Path) -> None:
    path.rename(path.with_name("real.json"))
    path.symlink_to(path.with_name("real.json"))


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line(name, copy):
    damage, says = DAMAGES[name]
    damage(copy)
    refused(copy, says)


def test_a_missing_folder_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(tmp_path / "nowhere", "no such folder")
