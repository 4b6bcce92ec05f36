"""python -m eval on a run: figures and items agree, sampling resumes, missing figures are explained."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from eval.items import flat, read_items
from ragaf_exp.commands import evaluate as command
from ragaf_exp.config.compose import load_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item
from ragaf_exp.evaluation.overlap import check_train_test_overlap
from ragaf_exp.evaluation.run import evaluate_run
from ragaf_exp.inference.load import load_run
from ragaf_exp.inference.pipeline import Pipeline
from ragaf_exp.report import write_report
from ragaf_exp.runs.folder import RunFolder


@pytest.fixture
def calls(monkeypatch):
    """Counts the batches that the pipeline samples."""
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
    overlap = content["training_overlap"]
    assert overlap["compared"] == overlap["training"] > 0 and overlap["shared"] == overlap["unreadable"] == 0
    assert not [text for text in content["warnings"] if "training set" in text]


@pytest.mark.long
def test_images_that_do_not_fit_into_memory_are_read_again(run_copy, figures, monkeypatch, calls):
    cfg = load_config(run_copy / "config.yaml")
    cfg.eval.batch = 1
    evaluate_run(RunFolder(run_copy), cfg)
    before, first = figures(run_copy), len(calls)
    monkeypatch.setattr("ragaf_exp.evaluation.samples.HELD", 0)
    monkeypatch.setattr("ragaf_exp.evaluation.samples.FEWEST", 1)
    monkeypatch.setattr("ragaf_exp.evaluation.run.EXAMPLES_MB", 0)
    evaluate_run(RunFolder(run_copy), cfg)
    assert figures(run_copy) == pytest.approx(before, rel=1e-5) and len(calls) == first, "from the disk"


def test_test_items_in_the_training_split_are_named(run_copy, cli):
    """A split by name whose pictures are equal: what a folder of photos with copies does."""
    folder, cfg = RunFolder.read(run_copy)
    shared = load_run(folder, cfg)[0].source.split("test")[1]
    training = [replace(shared, key="other"), replace(shared, image=255 - shared.image)]
    stages, truth = {"stage1": [shared.image[::-1]] * 2}, [shared.image, 255 - shared.image // 2]
    warnings, counts = check_train_test_overlap(stages, truth, ["a", "b"], training)
    assert counts == {"training": 2, "compared": 2, "unreadable": 0, "shared": 1}
    assert any("test images: 1 of 2 images are in the training set (a)" in text for text in warnings)
    content = json.loads((run_copy / "metrics.json").read_text())
    content["warnings"] = warnings
    (run_copy / "metrics.json").write_text(json.dumps(content))
    assert "1 of 2 images are in the training set (a)" in write_report(run_copy).read_text()


def test_a_large_training_split_is_compared_in_part():
    pictures = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    items = LazyItems(lambda i: broken(i) if i == 8 else Item(str(i), pictures[i], ""), 40)
    reads: list[int] = []
    training = LazyItems(lambda i: reads.append(i) or items[i], 40)
    stages, truth, keys = {"stage1": list(pictures[:5, ::-1])}, list(pictures[:5]), list("abcde")
    warnings, counts = check_train_test_overlap(stages, truth, keys, training, bound=10)
    assert sorted(reads) == list(range(0, 40, 4))
    assert counts == {"training": 40, "compared": 9, "unreadable": 1, "shared": 2}
    assert any("2 of 5 images are in the training set (a, e)" in text for text in warnings)
    _, counts = check_train_test_overlap(stages, truth, keys, [])
    assert counts == {"training": 0, "compared": 0, "unreadable": 0, "shared": 0}


def broken(index: int) -> Item:
    raise UserError(f"{index}.png: is damaged")


def test_odd_sampled_images_are_reported():
    pictures = list(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8))
    flat = [np.full((8, 8, 3), 7, np.uint8)] * 4
    stages, truth = {"stage2": flat, "stage1": pictures[::-1]}, [255 - p for p in pictures]
    warnings, _ = check_train_test_overlap(stages, truth, list("abcd"), [])
    assert any(text.startswith("images of stage2: 4 images are of one colour") for text in warnings)
    assert not [text for text in warnings if text.startswith("images of stage1")]


def test_images_with_nan_stop_it_and_are_named(run_copy, cli, monkeypatch):
    draw = Pipeline.__call__

    def diverged(self, batch):
        latents = draw(self, batch)
        list(latents.images.values())[-1][1, 0, 0, 0] = float("nan")
        return latents

    monkeypatch.setattr(Pipeline, "__call__", diverged)
    shutil.rmtree(run_copy / "samples" / "drawn", ignore_errors=True)
    status, _, err = cli(command.main, f"run={run_copy}")
    assert status == 2 and "NaN" in err.splitlines()[-1] and "scenes0-test" in err.splitlines()[-1], err


def test_images_are_sampled_once(run_copy, calls, figures):
    cfg = load_config(run_copy / "config.yaml")
    evaluate_run(RunFolder(run_copy), cfg)
    first = len(calls)
    before = figures(run_copy)
    (run_copy / "metrics.json").unlink()
    evaluate_run(RunFolder(run_copy), cfg)
    assert len(calls) == first, "read, not drawn again"
    assert figures(run_copy) == pytest.approx(before, rel=1e-5)


@pytest.mark.long
def test_other_settings_are_sampled_again(run_copy, calls):
    cfg = load_config(run_copy / "config.yaml")
    evaluate_run(RunFolder(run_copy), cfg)
    first = len(calls)
    cfg.sampler.steps = 3
    evaluate_run(RunFolder(run_copy), cfg)
    assert len(calls) > first


def test_a_killed_evaluation_goes_on(run_copy, calls, monkeypatch):
    cfg = load_config(run_copy / "config.yaml")
    cfg.eval.batch, cfg.eval.pictures = 1, 2
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
    assert calls.count(1) == 6, "two of four were cached; four with region prompts; both attention pictures are one batch"


@pytest.mark.long
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
def test_invalid_arguments_are_refused(run_copy, words, refused):
    refused(command.main, f"run={run_copy}", *words, says=(words[0].partition("=")[0].split(".")[0],))
