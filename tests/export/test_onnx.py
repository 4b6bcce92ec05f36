"""One denoising step as ONNX: onnxruntime agrees to 1e-5 for other numbers of regions and tokens, and in whole images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from exporting import write
from images import PROMPT

from ragaf_exp.config.compose import compose_config
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.experiment import run as train
from ragaf_exp.inference.examples import as_example
from ragaf_exp.inference.load import load_run, make_pipeline
from ragaf_exp.runs.folder import RunFolder

onnx = pytest.importorskip("onnx", reason='onnx is not installed: pip install "ragaf_exp[onnx]"')
for name in ("onnxscript", "onnxruntime"):
    pytest.importorskip(name, reason=f'{name} is not installed: pip install "ragaf_exp[onnx]"')

from ragaf_exp.export import onnx_step  # noqa: E402
from ragaf_exp.export.kinds import CheckFailed  # noqa: E402

pytestmark = pytest.mark.process  # exporting a graph takes about half a minute


@pytest.fixture(scope="module")
def graphs(finished, tmp_path_factory):
    return write(finished, tmp_path_factory.mktemp("exports") / "onnx", "onnx") / "onnx"


@pytest.fixture(scope="module")
def run(finished):
    return load_run(*RunFolder.read(finished))


def test_a_step_agrees_for_other_regions_tokens_and_timesteps(graphs, run):
    parts, pipeline = run
    drawing = np.zeros((32, 32), np.float32)
    drawing[:, [8, 16, 24]] = drawing[[10, 20]] = 1  # twelve regions, more than either example of the export
    example = as_example(drawing, "a striped blue star above a green cross and a hollow red ring", parts, (32, 32))
    for stage in ("coarse", "refine"):
        model = pipeline.models[stage]
        denoiser = onnx_step.OnnxDenoiser(model, graphs / f"{stage}.onnx")
        with torch.no_grad():
            c = model.condition(collate([example]))
            x_t, _ = onnx_step.noised(parts)
            for t in (1.0, 700.0):
                ours, theirs = (network.denoise(x_t, torch.tensor([t]), c).value for network in (model, denoiser))
                assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, float(ours.abs().max()))


def test_a_whole_image_sampled_by_onnxruntime(graphs, run, strokes):
    parts, pipeline = run
    batch = collate([as_example(strokes, PROMPT, parts, (32, 32))])
    ours = pipeline(batch)
    models = {name: onnx_step.OnnxDenoiser(model, graphs / f"{name}.onnx") for name, model in pipeline.models.items()}
    theirs = make_pipeline(parts.cfg, parts, models, pipeline.compute)(batch)
    assert float((ours.images["stage2"] - theirs.images["stage2"]).abs().max()) <= 1e-4, "steps add up"
    assert np.abs(ours.to_images().final.astype(int) - theirs.to_images().final.astype(int)).max() <= 1


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_a_guided_image_is_one_graph(scheduler, tiny, tmp_path):
    """The export compares its latent with the sampler's; captions, sketches and neither are separate inputs."""
    guided = [*(given for given in tiny if not given.startswith("sampler.")), f"sampler.scheduler={scheduler}",
              "sampler.steps=20", "sampler.guidance=2", "sampler.sketch_guidance=1.5", "stage.run=[coarse]",
              f"runs={tmp_path / 'runs'}"]  # fmt: skip
    folder = train(compose_config(guided)).path
    out = write(folder, tmp_path / "out", "onnx")
    names = [given.name for given in onnx.load(out / "onnx" / "coarse_image.onnx", load_external_data=False).graph.input]
    conditions = [name for name in names[2:] if not name.startswith("pass")]
    assert names == ["start", "noise", *conditions, *(f"pass{k}_{name}" for k in (1, 2) for name in conditions)]


def test_the_inputs_are_named_and_another_graph_is_noticed(graphs, run):
    names = json.loads((graphs / "refine.json").read_text())["inputs"]
    assert names[:2] == ["x_t", "t"] and "text.tokens" in names and "regions.structure" in names
    parts, pipeline = run
    with torch.no_grad():
        weight = pipeline.models["coarse"].backbone.unet.conv_in.bias
        weight += 0.01
    with pytest.raises(CheckFailed, match="onnxruntime differs by"):
        onnx_step.check_step(graphs / "coarse.onnx", pipeline.models["coarse"], parts)
