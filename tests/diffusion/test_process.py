"""A new diffusion process is one class: flow matching goes through objective and sampler as it is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ragaf_exp.diffusion.base import Process
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.training.step_noise import sample_step_noise


class FlowScheduler(FlowMatchEulerDiscreteScheduler):
    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample

    def add_noise(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.scale_noise(sample, timesteps, noise)


class Flow(Process):
    """x_t = (1 - s) x_0 + s noise, s = t / T; the network predicts noise - x_0 (Lipman et al. 2023, arXiv 2210.02747)."""

    schedulers = ("euler",)

    def __init__(self, timesteps: int = 1000):
        super().__init__()
        self.timesteps = timesteps

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return torch.lerp(x_0, noise, self._s(t))

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x_0

    def to_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return x_t - self._s(t) * prediction

    def weight(self, t: Tensor) -> Tensor:
        return torch.ones(len(t))

    def scheduler(self, name: str) -> FlowScheduler:
        return FlowScheduler(num_train_timesteps=self.timesteps)

    def _s(self, t: Tensor) -> Tensor:
        return (t / self.timesteps)[:, None, None, None]


@pytest.mark.parametrize("process", [Diffusion(), Diffusion(prediction="v"), Flow()], ids=["x0", "v", "flow"])
def test_the_target_leads_back_to_x_0_at_the_timesteps_of_the_process(process):
    rng = torch.Generator().manual_seed(0)
    x_0 = torch.randn(64, 3, 4, 4, generator=rng)
    noise = sample_step_noise(process, x_0.shape, 900, {}, 0.0, rng)
    assert noise.timesteps.min() >= 0 and noise.timesteps.max() < 900
    x_t = process.add_noise(x_0, noise.noise, noise.timesteps)
    target = process.target(x_0, noise.noise, noise.timesteps)
    torch.testing.assert_close(process.to_x0(target, x_t, noise.timesteps), x_0, rtol=1e-4, atol=1e-4)
    assert process.weight(noise.timesteps).shape == (64,)


@dataclass
class Output:
    value: Tensor


class KnowsTheAnswer:
    """A flow's denoiser that has learned one x_0."""

    def __init__(self, x_0: Tensor):
        self.x_0 = x_0

    def condition(self, batch, keep=None) -> None:
        return None

    def with_start(self, conditioning, coarse):
        return conditioning

    def denoise(self, x_t: Tensor, t: Tensor, c) -> Output:
        return Output((x_t - self.x_0) / (t / 1000)[:, None, None, None])


class Images:
    image = torch.zeros(2, 3, 8, 8)

    def __len__(self) -> int:
        return len(self.image)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_sampler_follows_a_flow_to_its_end(strength):
    x_0, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    coarse = None if strength == 1 else torch.randn(2, 3, 4, 4)
    sampled, _ = Sampler(Flow(), "euler", steps=5).sample(KnowsTheAnswer(x_0), Images(), noise, coarse, strength)
    torch.testing.assert_close(sampled, x_0, rtol=1e-4, atol=1e-4)
