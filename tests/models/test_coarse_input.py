"""A stage 2 that sees stage 1's latent: it starts as stage 1, trains on samples of stage 1, and samples with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ragaf_exp.assembly.model import init_from_start, make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Loss
from ragaf_exp.data.loader import collate
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.experiments.training import Training
from ragaf_exp.inference.load import make_pipeline
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.losses.start_sample import StartSampler
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.step_noise import sample_step_noise


@pytest.fixture(scope="module")
def experiment(tiny, tmp_path_factory) -> Training:
    cfg = compose_config([*tiny, "stage.refine.coarse_input=true", f"runs={tmp_path_factory.mktemp('coarse')}"])
    return Training(cfg, RunFolder.create(cfg))


@pytest.fixture(scope="module")
def batch(experiment):
    return collate([experiment.train_examples[i] for i in range(3)])


@pytest.fixture
def models(experiment) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Stage 1, and a fresh stage 2 on it."""
    coarse = make_model(experiment.parts, "coarse").eval()
    torch.nn.init.normal_(coarse.backbone.head.last.weight, std=0.1)
    return coarse, init_from_start(make_model(experiment.parts, "refine"), coarse.state_dict(), "full").eval()


def opened(model: torch.nn.Module) -> torch.nn.Module:
    torch.nn.init.normal_(model.coarse_in.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return model


@torch.no_grad()
def test_a_fresh_stage_2_does_not_see_it_and_an_open_one_does(experiment, batch, models):
    coarse, refine = models
    x, t = torch.randn(experiment.parts.codec.encode(batch.image).shape), torch.tensor([50, 500, 950])
    latent = torch.randn_like(x)
    one, _ = coarse(batch, x, t)
    two, _ = refine(batch, x, t, start=latent)
    assert torch.equal(one.value, two.value)
    other = [opened(refine)(batch, x, t, start=c)[0].value for c in (latent, latent + 1, None)]
    assert not torch.allclose(other[0], other[1]) and torch.equal(other[2], one.value)


def test_training_shows_samples_of_stage_1_and_nothing_of_the_image(experiment, batch, models):
    sample = StartSampler(experiment.parts.diffusion, models[0])
    noise = torch.randn(experiment.parts.codec.encode(batch.image).shape)
    first = sample(batch, noise)
    assert torch.equal(first, sample(replace(batch, image=-batch.image), noise))
    last = torch.full((3,), 999)
    with torch.no_grad():
        assert torch.equal(first, models[0](batch, noise, last)[0].value), "one step: what stage 1 says of pure noise"
    assert not torch.allclose(first, sample(batch, noise.flip(0)))
    assert not torch.allclose(first, sample(replace(batch, sketch=batch.sketch.roll(1, 0)), noise))
    sample.steps = 3
    assert sample(batch, noise).isfinite().all() and not torch.allclose(sample(batch, noise), first)


def test_the_gradient_reaches_what_sees_it_and_not_stage_1(experiment, batch, models):
    coarse, refine = models
    objective = Objective(experiment.parts.diffusion, Loss(), coarse)
    x0 = experiment.parts.codec.encode(batch.image)
    drawn = sample_step_noise(Diffusion(), x0.shape, 900, {}, 0.0, torch.Generator().manual_seed(0), start=True)
    objective(refine, batch, x0, drawn)["loss"].backward()
    assert refine.coarse_in.weight.grad.any()
    assert all(p.grad is None for p in coarse.parameters())
    refine.zero_grad()
    objective(refine, batch, x0, drawn, regions_only=True)["loss"].backward()
    assert refine.coarse_in.weight.grad is None, "nothing is drawn for steps that don't run the denoiser"
    assert not any(name.startswith("coarse") for name, _ in objective.named_parameters())


def test_noise_timesteps_and_recolouring_stay_the_same(experiment):
    shape = torch.Size((4, 3, 2, 2))
    dropout = {"text": 0.1, "sketch": 0.1}
    plain, more = (
        sample_step_noise(Diffusion(), shape, 900, dropout, 0.5, torch.Generator().manual_seed(0), start=c)
        for c in (False, True)
    )
    assert plain.start is None and more.start.shape == shape and not torch.equal(more.start, more.noise)
    assert all(torch.equal(getattr(plain, k), getattr(more, k)) for k in ("noise", "timesteps", "recolour"))
    assert torch.equal(plain.keep["text"], more.keep["text"])
    assert torch.equal(more.rows(slice(1, 3)).start, more.start[1:3])


def test_stage_2_gets_stage_1s_sample_when_sampling(experiment, batch, models):
    coarse, refine = models
    pipeline = make_pipeline(experiment.cfg, experiment.parts, {"coarse": coarse, "refine": refine}, experiment.compute)
    drawn = pipeline(batch).images
    opened(refine)
    other = pipeline(batch).images
    assert torch.equal(drawn["stage1"], other["stage1"]) and not torch.equal(drawn["stage2"], other["stage2"])
    alone = make_pipeline(experiment.cfg, experiment.parts, {"refine": refine}, experiment.compute)(batch)
    assert alone.images["stage2"].isfinite().all(), "without stage 1 there is nothing to see"
