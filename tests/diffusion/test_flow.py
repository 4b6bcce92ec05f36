"""Rectified flow: the path, densities of timesteps, shifts by resolution, weights, and diffusers' samplers of flows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.diffusion.densities import DENSITIES, SHIFTS, make_density, shifted
from ragaf_exp.diffusion.flow import WEIGHTINGS, Flow
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.experiments.experiment import run
from ragaf_exp.plan.predict import predict
from ragaf_exp.training.step_noise import sample_step_noise


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(DENSITIES), st.sampled_from(sorted(WEIGHTINGS)), st.floats(0.2, 5.0), st.integers(1, 1000))
def test_the_velocity_leads_back_to_x_0(density, weighting, shift, last):
    flow = Flow(density=density, weighting=weighting, shift=shift)
    x_0 = torch.randn(16, 3, 4, 4, generator=rng())
    step = sample_step_noise(flow, x_0.shape, last, {}, 0.0, rng())
    assert (step.timesteps >= 0).all() and (step.timesteps <= 1000 * shifted(torch.tensor(last / 1000), shift) + 0.01).all()
    x_t = flow.add_noise(x_0, step.noise, step.timesteps)
    velocity = flow.target(x_0, step.noise, step.timesteps)
    torch.testing.assert_close(flow.to_x0(velocity, x_t, step.timesteps), x_0, rtol=1e-4, atol=1e-4)
    assert flow.weight(step.timesteps).isfinite().all() and (flow.weight(step.timesteps) > 0).all()


def test_the_ends_of_the_path_are_data_and_noise():
    x_0, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    ends = Flow().add_noise(x_0, noise, torch.tensor([0.0, 1000.0]))
    assert torch.equal(ends[0], x_0[0]) and torch.equal(ends[1], noise[1])


@pytest.mark.parametrize("name", DENSITIES)
def test_distribution_function_and_quantile_are_inverse(name):
    density = make_density(name, 0.3, 0.8)
    share = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
    result = torch.tensor([density.cdf(float(t)) for t in density.quantile(share)])
    torch.testing.assert_close(result, share, rtol=0, atol=1e-5, check_dtype=False)


def test_logit_normal_timesteps_have_the_distribution_of_diffusers():
    ours = Flow(density="logit_normal", mean=0.5, deviation=0.7).sample_timesteps(20_000, 1000, rng()) / 1000
    theirs = compute_density_for_timestep_sampling("logit_normal", 20_000, 0.5, 0.7, generator=rng(1))
    levels = torch.linspace(0.05, 0.95, 19)
    torch.testing.assert_close(ours.quantile(levels), theirs.quantile(levels), rtol=0, atol=0.015)


def test_timesteps_of_a_later_start_keep_the_shape_of_the_density():
    flow = Flow(density="logit_normal")
    whole, part = (flow.sample_timesteps(40_000, last, rng(last)) for last in (1000, 400))
    assert part.max() <= 400
    torch.testing.assert_close(part.mean(), whole[whole < 400].mean(), rtol=0, atol=5)


def test_shifts_follow_the_formulas_of_sd3_and_flux():
    assert SHIFTS["sd3"](1024) == 2 and SHIFTS["constant"](1024) == 1
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    for tokens, mu in ((256, 0.5), (4096, 1.15)):
        theirs = dynamic.time_shift(mu, 1.0, t.numpy())
        torch.testing.assert_close(shifted(t, SHIFTS["flux"](tokens)), torch.as_tensor(theirs))


def test_larger_images_are_trained_on_and_sampled_from_noisier_timesteps():
    flow = Flow(shift_by="sd3", patch_size=2)
    assert flow.at(32, 32).shift == 1 and flow.at(64, 128).shift == pytest.approx(math.sqrt(8))
    small, large = (sample_step_noise(flow, (4000, 1, side, side), 1000, {}, 0, rng()).timesteps for side in (4, 32))
    assert large.mean() > small.mean() + 150, "the step's noise knows the latents' size"
    scheduler = flow.at(128, 128).scheduler("euler")
    scheduler.set_timesteps(4)
    torch.testing.assert_close(scheduler.timesteps / 1000, shifted(torch.tensor([1, 0.75, 0.5, 0.25]), 4.0))


@pytest.mark.parametrize("name", ["sigma_sqrt", "cosmap", "none"])
def test_weights_are_those_of_diffusers(name):
    t = torch.tensor([50.0, 300.0, 800.0])
    theirs = compute_loss_weighting_for_sd3(name, t / 1000)
    torch.testing.assert_close(Flow(weighting=name).weight(t), theirs)


def test_min_snr_weighs_the_error_of_x_0_as_the_other_processes_do():
    t = torch.tensor([50.0, 300.0, 800.0])
    s = t / 1000
    snr = ((1 - s) / s) ** 2
    weight_of_x_0 = Flow(weighting="min_snr", min_snr=5, snr_offset=1).weight(t) / s**2
    torch.testing.assert_close(weight_of_x_0, (snr + 1).clamp(max=5))


@dataclass
class Output:
    value: Tensor


@dataclass
class Gaussian:
    """The exact denoiser of normal data of a deviation: x_0 = deviation x noise at the end of the flow."""

    deviation: float
    calls: list[float] = field(default_factory=list)

    def condition(self, batch, keep=None) -> None:
        return None

    def with_start(self, conditioning, coarse):
        return conditioning

    def denoise(self, x_t: Tensor, t: Tensor, c) -> Output:
        s, variance = float(t[0]) / 1000, self.deviation**2
        self.calls.append(s)
        return Output(x_t * (s - (1 - s) * variance) / ((1 - s) ** 2 * variance + s**2))


class Images:
    image = torch.zeros(2, 3, 8, 8)

    def __len__(self) -> int:
        return len(self.image)


def error(name: str, steps: int) -> tuple[float, int]:
    """(relative error of the end of a curved flow, calls of the network)."""
    noise, model = torch.randn(2, 3, 8, 8, generator=rng()), Gaussian(0.5)
    result, _ = Sampler(Flow(), name, steps).sample(model, Images(), noise)
    return float((result / (0.5 * noise) - 1).abs().mean()), len(model.calls)


def test_heun_is_closer_than_euler_in_as_many_calls():
    (heun, calls), (euler, same) = error("heun", 10), error("euler", 19)
    assert calls == same == 19 and heun < 0.5 * euler
    assert error("euler", 200)[0] < 0.1 * error("euler", 10)[0]
    assert error("dpm", 10)[0] < error("euler", 10)[0]


@pytest.mark.parametrize("name", Flow.schedulers)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_stage_2_starts_where_its_training_ends(name, shift):
    flow, model = Flow(shift=shift, density="uniform"), Gaussian(0.5)
    noise, coarse = torch.randn(2, 3, 8, 8, generator=rng()), torch.zeros(2, 3, 8, 8)
    Sampler(flow, name, 10).sample(model, Images(), noise, coarse, strength=0.6)
    trained = flow.sample_timesteps(20_000, 600, rng()).max() / 1000
    assert model.calls[0] == pytest.approx(float(shifted(torch.tensor(0.6), shift)), abs=0.03)
    assert model.calls[0] == pytest.approx(float(trained), abs=0.03)
    assert len(model.calls) == (11 if name == "heun" else 6)


def test_a_start_at_half_the_noise_keeps_half_of_the_coarse_latent():
    class Nothing(Gaussian):
        def denoise(self, x_t, t, c):
            self.first = x_t if not self.calls else self.first
            return super().denoise(x_t, t, c)

    for name in ("euler", "heun"):
        model, noise, coarse = Nothing(0.5), torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
        Sampler(Flow(), name, 10).sample(model, Images(), noise, coarse, strength=0.5)
        torch.testing.assert_close(model.first, 0.5 * coarse)


def test_a_network_learns_a_flow_to_two_points():
    torch.manual_seed(0)
    flow, net = Flow(), nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    optimizer, generator = torch.optim.Adam(net.parameters(), 3e-3), rng()

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return net(torch.stack([x.flatten(), t / 1000], dim=1)).view_as(x)

    for _ in range(600):
        x_0 = torch.randint(0, 2, (128, 1, 1, 1), generator=generator) * 4.0 - 2
        step = sample_step_noise(flow, x_0.shape, 1000, {}, 0.0, generator)
        x_t = flow.add_noise(x_0, step.noise, step.timesteps)
        target = flow.target(x_0, step.noise, step.timesteps)
        error = (velocity(x_t, step.timesteps) - target).square().flatten(1).mean(1)
        optimizer.zero_grad()
        (flow.weight(step.timesteps) * error).mean().backward()
        optimizer.step()

    class Learned(Gaussian):
        def denoise(self, x_t, t, c):
            return Output(velocity(x_t, t))

    result, _ = Sampler(flow, "heun", 10).sample(Learned(1.0), Images(), torch.randn(400, 1, 1, 1, generator=generator))
    assert ((result.abs() - 2).abs() < 0.4).float().mean() > 0.9
    assert 0.4 < (result > 0).float().mean() < 0.6


@pytest.mark.parametrize("options", [{"density": "normal"}, {"shift_by": "sd4"}, {"weighting": "snr"}])
def test_unknown_options_are_refused_with_those_that_exist(options):
    with pytest.raises(UserError, match=f"diffusion.{next(iter(options))}=.*must be one of"):
        Flow(**options)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UserError, match=r"sampler.scheduler=ddim.*dpm.*euler.*heun"):
        Sampler(Flow(), "ddim")
    with pytest.raises(UserError, match="take diffusion=folder"):
        Flow().check_pretrained({"prediction_type": "epsilon"})


@pytest.mark.long
def test_both_stages_run_and_are_planned_with_a_flow(tiny, tmp_path):
    options = """diffusion=flow diffusion.shift_by=sd3 sampler=heun sampler.steps=2 stage.refine.coarse_input=true
                 stage.coarse.steps=2 stage.refine.steps=2 stage.refine.region_steps=1 data.train=8""".split()
    cfg = compose_config([*tiny, *options, f"runs={tmp_path}"])
    folder = run(cfg).path
    assert (folder / "metrics.json").is_file() and (folder / "report.html").is_file()
    assert list(folder.rglob("attention_steps*.png"))
    assert all(peak.bytes > 0 for peak in predict(cfg, "no", ("refine", "sampling")))
