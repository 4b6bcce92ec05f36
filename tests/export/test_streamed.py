"""Networks that are read layer by layer: the same image, no weights in memory, and every difference is noticed."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensor_files import lazy
from ragaf_exp.export import same_image
from ragaf_exp.export.kinds import CheckFailed
from ragaf_exp.export.networks import WEIGHTS
from ragaf_exp.export.same_image import check_image
from ragaf_exp.export.streamed import Reading, streamed_model
from ragaf_exp.export.trained import Trained, open_run
from ragaf_exp.inference.load import load_run
from ragaf_exp.models.model import Model
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.process  # trains a run


@pytest.fixture(scope="module")
def trained(lora_run) -> Trained:
    return open_run(str(lora_run), {})


def streamed(trained: Trained, stage: str, copied: bool = False) -> Model:
    chosen = trained.stages[stage]
    return streamed_model(chosen.own, Reading(copied), trained.parts, stage, chosen.sources)


def outputs(model: Model) -> torch.Tensor:
    unet = model.backbone.unet
    given = torch.Generator().manual_seed(0)
    x, text = (torch.randn(shape, generator=given) for shape in ((1, 4, 8, 8), (1, 77, unet.config.cross_attention_dim)))
    with torch.no_grad():
        return unet(x, torch.tensor([400]), text).sample


@pytest.mark.parametrize("copied", [False, True])
def test_layers_have_their_weights_while_they_run_and_not_longer(copied, trained, lora_run):
    _, pipeline = load_run(*RunFolder.read(lora_run))
    model = streamed(trained, "refine", copied)
    large = [*model.backbone.unet.parameters(), *model.hint.net.parameters()]
    assert all(p.is_meta for p in large)
    torch.testing.assert_close(outputs(model), outputs(pipeline.models["refine"]), rtol=1e-5, atol=1e-6)
    assert all(p.is_meta for p in (*model.backbone.unet.parameters(), *model.hint.net.parameters()))
    assert not any(p.is_meta for p in model.ragaf.parameters()) and not any(p.is_meta for p in model.text.parameters())


def test_stages_share_the_weights_that_they_hold(trained):
    reading = Reading(copied=False)
    models = [
        streamed_model(s.own, reading, trained.parts, name, s.sources) for name, s in trained.stages.items()
    ]  # fmt: skip
    one, other = (dict(model.text.named_parameters()) for model in models)
    assert one and all(value.data_ptr() == other[name].data_ptr() for name, value in one.items())


def test_building_leaves_the_callers_noise_alone(trained):
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    streamed(trained, "coarse")
    assert torch.equal(torch.randn(3), expected)


def test_another_source_is_refused(trained):
    stage = trained.stages["coarse"]
    sources = {**stage.sources, "backbone": {**stage.sources["backbone"], "sha256": 64 * "0"}}
    with pytest.raises(UserError, match="backbone.source=.*not those that this run was trained with"):
        streamed_model(stage.own, Reading(copied=False), trained.parts, "coarse", sources)


@pytest.mark.parametrize("kind", ["tiny", "stable diffusion"])
def test_an_image_of_other_weights_is_noticed_after_a_second_look(kind, request, tmp_path, monkeypatch):
    names = ("finished", "exported") if kind == "tiny" else ("lora_run", "lora_export")
    run, folder = (request.getfixturevalue(name) for name in names)
    copy, looks, real = shutil.copytree(folder, tmp_path / "copy"), [], same_image._images

    def counted(*arguments):
        looks.append(arguments[-1].copied)
        return real(*arguments)

    monkeypatch.setattr(same_image, "_images", counted)
    run = open_run(str(run), {})
    assert check_image(copy, run, "no", False, {}).endswith("by at most 0 of 255") and looks == [False]
    weights = load_file(copy / "refine" / WEIGHTS)
    save_file({name: value if "ragaf" in name else -value for name, value in weights.items()}, copy / "refine" / WEIGHTS)
    looks.clear()
    with pytest.raises(CheckFailed, match="an image differs from the run's by"):
        check_image(copy, run, "no", False, {})
    assert looks == [False, True]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_not_finite_are_refused(value, finished):
    run = open_run(str(finished), {})
    stage = run.stages["refine"]
    name, tensor = next(iter(stage.own.items()))
    broken = replace(stage, own={**stage.own, name: lazy(torch.full(tensor.shape, float(value)))})
    with pytest.raises(UserError, match="NaN or infinite .*; train this stage again"):
        same_image._model(run, broken, Reading(copied=False))

