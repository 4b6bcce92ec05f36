"""python -m eval on a run: figures and items agree, drawing resumes, what can't be measured is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

import eval.__main__ as command
from eval.items import flat, read_items
from ragaf_exp.config.compose import load_config
from ragaf_exp.experiment import evaluate_run
from ragaf_exp.generate import Pipeline
from ragaf_exp.runfolder import RunFolder


@pytest.fixture
def calls(monkeypatch):
    """How often the pipeline drew a batch."""
    made: list[int] = []
    draw = Pipeline.__call__
    monkeypatch.setattr(Pipeline, "__call__", lambda self, batch: made.append(len(batch)) or draw(self, batch))
    return made


def test_figures_are_the_means_of_the_items(finished):
    content = json.loads((finished / "metrics.json").read_text())
    rows = read_items(finished / "items.jsonl")
    assert len(rows) == content["items"]["used"] == 4
    for name in ("ssim", "stage1/ssim", "sketch_f1", "binding_accuracy", "stage1/leak_rate", "pointing_accuracy"):
        values, _ = flat(rows, name)
        entry = content["metrics"][name]
        assert entry["value"] == pytest.approx(np.mean(values)) and entry["n"] == len(values)
    for name in ("sketch_f1", "chamfer_shuffled", "stage1/edge_ms_ssim_shuffled"):
        assert content["metrics"][name]["edges"] == "canny_lab" and "tolerance_px" in content["metrics"][name]
    assert {"stroke_density", "regions"} <= set(content["groups"])


def test_images_are_drawn_once(run_copy, calls, figures):
    cfg = load_config(run_copy / "config.yaml")
    evaluate_run(RunFolder(run_copy), cfg)
    first = len(calls)
    before = figures(run_copy)
    (run_copy / "metrics.json").unlink()
    evaluate_run(RunFolder(run_copy), cfg)
    assert len(calls) == first, "read, not drawn again"
    assert figures(run_copy) == pytest.approx(before, rel=1e-5)


def test_other_settings_are_drawn_anew(run_copy, calls):
    cfg = load_config(run_copy / "config.yaml")
    evaluate_run(RunFolder(run_copy), cfg)
    first = len(calls)
    cfg.sampler.steps = 3
    evaluate_run(RunFolder(run_copy), cfg)
    assert len(calls) > first


def test_a_killed_evaluation_goes_on(run_copy, calls, monkeypatch):
    cfg = load_config(run_copy / "config.yaml")
    cfg.eval.batch = 1
    draw = Pipeline.__call__

    def dies(self, batch):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(self, batch)

    monkeypatch.setattr(Pipeline, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(RunFolder(run_copy), cfg)
    assert len(calls) == 2
    calls.clear()
    monkeypatch.setattr(Pipeline, "__call__", draw)
    evaluate_run(RunFolder(run_copy), cfg)
    assert len(calls) == 2, "two of the four were kept"


def test_command_line_takes_the_group(run_copy, cli, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    few = cli(command.main, f"run={run_copy}", "items=3", "eval.metrics=[fd_embedded]", "eval.bootstrap=9")
    content = json.loads((run_copy / "metrics.json").read_text())
    assert few[0] == 0, few[2]
    assert content["metrics"]["ssim"]["n"] == 3 and content["metrics"]["ssim"]["resamples"] == 9
    assert "at least 4" in content["unavailable"]["fd_embedded"]
    status, out, err = cli(command.main, f"run={run_copy}", "items=0", "eval.metrics=[fid,fd_embedded]")
    content = json.loads((run_copy / "metrics.json").read_text())
    assert status == 0, err
    assert "eval.inception" in content["unavailable"]["fid"] and "fid: unavailable" in out
    distance = content["metrics"]["fd_embedded"]
    assert distance["n"] == 8 and distance["network"] == "embedded" and "2,048" in distance["warning"]


@pytest.mark.parametrize("words", [("reference=x",), ("items=-1",), ("eval.metrics=[nothing]",), ("eval=half",)])
def test_wrong_words(run_copy, words, refused):
    refused(command.main, f"run={run_copy}", *words, says=(words[0].partition("=")[0].split(".")[0],))
