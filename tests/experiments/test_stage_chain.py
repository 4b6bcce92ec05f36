"""Chains of other lengths than two: a third stage from the config alone, one stage with regions, and none with regions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ragaf_exp import sample
from ragaf_exp.commands import evaluate
from ragaf_exp.config.compose import compose_config
from ragaf_exp.experiments.experiment import run
from ragaf_exp.export.kinds import Options
from ragaf_exp.export.pipeline import RagafPipeline
from ragaf_exp.export.trained import open_run
from ragaf_exp.export.write import export
from ragaf_exp.inference.load import load_run
from ragaf_exp.plan.predict import phases_of, predict
from ragaf_exp.report.run.page import write_report
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.trainer import Trainer

pytestmark = pytest.mark.long
NAMES = ["coarse", "refine", "detail"]
DETAIL = "+stage.detail={starts_from: refine, regions: true, steps: 5, strength: 0.5, lr: 0.0005}"
THREE = ["stage.run=[coarse,refine,detail]", DETAIL]


@pytest.fixture(scope="module")
def three(tiny, tmp_path_factory) -> Path:
    """A finished run of three stages, read-only."""
    return run(compose_config([*tiny, *THREE, f"runs={tmp_path_factory.mktemp('three')}"])).path


@pytest.fixture
def drawing(tmp_path) -> Path:
    picture = Image.new("L", (64, 64), 255)
    ImageDraw.Draw(picture).ellipse((12, 12, 52, 52), outline=0, width=3)
    picture.save(tmp_path / "ring.png")
    return tmp_path / "ring.png"


def weights(folder: Path, stage: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "checkpoints" / stage).rglob("*.safetensors"))]


def test_a_third_stage_is_trained_from_the_second_and_changes_nothing_before_it(three, finished):
    for stage in NAMES[:2]:
        assert weights(three, stage) == weights(finished, stage) != []
    assert [path.name for path in sorted((three / "checkpoints" / "detail").iterdir())] == ["00000003", "00000005"]
    _, pipeline = load_run(*RunFolder.read(three))
    refine, detail = (dict(pipeline.models[name].named_parameters()) for name in NAMES[1:])
    assert refine.keys() == detail.keys() and any(not np.array_equal(refine[k], detail[k]) for k in refine)
    log = [json.loads(line) for line in (three / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(row["stage"] for row in log)) == NAMES
    assert any("right" in row.get("validation", {}) for row in log if row["stage"] == "detail")
    assert (three / "samples" / "detail-000005.png").is_file()


def test_it_resumes_within_the_third_stage_to_the_same_bytes(three, tiny, tmp_path, monkeypatch):
    cfg, step = compose_config([*tiny, *THREE, f"runs={tmp_path}"]), Trainer.step

    def fails(self, number, batch):
        if (self.plan.stage, number) == ("detail", 4):
            raise KeyboardInterrupt
        step(self, number, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", fails)
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    folder = RunFolder(tmp_path / "tiny" / three.name)
    assert folder.state["state"] != "done"
    assert run(cfg).path == folder.path
    for stage in NAMES:
        assert weights(folder.path, stage) == weights(three, stage)
    assert json.loads(folder.metrics.read_text()) == json.loads((three / "metrics.json").read_text())


def test_every_stage_has_figures_pictures_and_columns_in_the_report(three, tmp_path, cli):
    metrics = json.loads((three / "metrics.json").read_text())["metrics"]
    assert {"stage1/ssim", "stage2/ssim", "ssim"} <= set(metrics) and "stage3/ssim" not in metrics
    assert len({metrics[name]["value"] for name in ("stage1/ssim", "stage2/ssim", "ssim")}) == 3
    copy = shutil.copytree(three, tmp_path / "copy")
    shutil.rmtree(copy / "samples" / "drawn", ignore_errors=True)
    status, out, err = cli(evaluate.main, f"run={copy}")
    assert status == 0, err
    assert "stage 1" in out and "stage 2" in out and "stage 3" in out
    assert json.loads((copy / "metrics.json").read_text())["metrics"] == metrics
    page = write_report(copy).read_text()
    for title in ("Stage 1, coarse", "Stage 2, refine", "Stage 3, detail", "<th>Stage 3"):
        assert title in page, title


def test_sample_writes_the_images_of_every_stage_and_edits_the_last(three, drawing, tmp_path, cli):
    common, first = (f"run={three}", f"sketch={drawing}", 'prompt="a red circle"'), tmp_path / "first"
    status, _, err = cli(sample.main, *common, f"out={first}")
    assert status == 0, err
    images = [np.asarray(Image.open(first / f"stage{number}.png")) for number in (1, 2, 3)]
    assert not (images[0] == images[1]).all() and not (images[1] == images[2]).all()
    assert json.loads((first / "result.json").read_text())["strength"] == 0.5
    (tmp_path / "edits.json").write_text(json.dumps({"regions": [{"at": [0.5, 0.5], "prompt": "blue"}]}))
    again = (f"edits={tmp_path / 'edits.json'}", f"keep={first / 'stage3.png'}", f"out={tmp_path / 'again'}")
    status, _, err = cli(sample.main, *common, *again)
    assert status == 0, err
    assert sorted(path.name for path in (tmp_path / "again").glob("stage*.png")) == ["stage3.png"]


def test_a_stage_is_added_to_a_finished_run(finished, tiny, three, tmp_path):
    folder = run(compose_config([*tiny, DETAIL, "stage.run=[detail]", f"init={finished}", f"runs={tmp_path}"])).path
    assert weights(folder, "detail") == weights(three, "detail"), "the same start, the same seed"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == sorted(NAMES)


def test_the_planner_plans_every_stage(tiny):
    cfg = compose_config([*tiny, *THREE])
    peaks = predict(cfg, "no")
    assert [peak.phase for peak in peaks] == list(phases_of(cfg)) == [*NAMES, "regions", "validation", "sampling"]
    size = {peak.phase: peak.parts.get("earlier stages", 0) for peak in peaks}
    assert size["coarse"] == 0 < size["refine"] < size["detail"]


def test_an_export_loads_with_and_without_the_code_of_its_folder(three, tmp_path, drawing):
    out = tmp_path / "export"
    rows = export(open_run(str(three), {}), out, ["diffusers", "run"], Options(), "")
    assert {"coarse", "refine", "detail"} <= {row.path for row in rows}
    ours = RagafPipeline.from_pretrained(out)
    assert list(ours.stages) == NAMES
    image = np.asarray(ours("a red circle", drawing, seed=3).images[0])
    from diffusers import DiffusionPipeline

    theirs = DiffusionPipeline.from_pretrained(out, trust_remote_code=True)
    assert np.array_equal(image, np.asarray(theirs("a red circle", drawing, seed=3).images[0]))
    assert sorted(theirs.components) == sorted(NAMES)
    ours.save_pretrained(tmp_path / "saved")
    saved = RagafPipeline.from_pretrained(tmp_path / "saved")
    assert np.array_equal(image, np.asarray(saved("a red circle", drawing, seed=3).images[0]))


def test_one_stage_with_regions_from_noise(tiny, tmp_path, drawing, cli):
    words = ["stage.run=[refine]", "stage.refine.starts_from=null"]
    folder = run(compose_config([*tiny, *words, f"runs={tmp_path}"])).path
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["refine"]
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert "ssim" in metrics and not any(name.startswith("stage") for name in metrics)
    (tmp_path / "edits.json").write_text(json.dumps({"regions": [{"at": [0.5, 0.5], "prompt": "blue"}]}))
    status, _, err = cli(sample.main, f"run={folder}", f"sketch={drawing}", 'prompt="a red circle"',
                         f"edits={tmp_path / 'edits.json'}", f"out={tmp_path / 'made'}")  # fmt: skip
    assert status == 0, err
    assert [path.name for path in (tmp_path / "made").glob("stage*.png")] == ["stage1.png"]


def test_two_stages_without_regions_and_a_latent_as_input(tiny, tmp_path):
    words = ["stage.refine.regions=false", "stage.refine.coarse_input=true"]
    folder = run(compose_config([*tiny, *words, f"runs={tmp_path}"])).path
    _, pipeline = load_run(*RunFolder.read(folder))
    assert not pipeline.has_regions and pipeline.last.coarse_in.weight.any(), "the input is trained"
    assert [path.name for path in sorted((folder / "checkpoints" / "refine").iterdir())][-1] == "00000006"
    assert {"stage1/ssim", "ssim"} <= set(json.loads((folder / "metrics.json").read_text())["metrics"])


def test_resolution_grows_by_stage(tiny, tmp_path):
    grows = ["stage.coarse.scale=4", "stage.refine.scale=2", "stage.refine.starts_from=coarse", *THREE, "data.size=64"]
    words = [word for word in tiny if not word.startswith("data.size")]
    folder = run(compose_config([*words, *grows, f"runs={tmp_path}"])).path
    for name in ("stage1", "stage2", "stage3"):
        image = np.asarray(Image.open(next(folder.glob(f"samples/test/*/{name}.png"))))
        assert image.shape == (64, 64, 3)
    _, pipeline = load_run(*RunFolder.read(folder))
    assert [stage.spec.scale for stage in pipeline.stages] == [4, 2, 1]
