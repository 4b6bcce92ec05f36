"""DREAM: the rectified noise of each process, and a training step with it."""

from __future__ import annotations

import pytest
import torch

from ragaf_exp.diffusion.flow import Flow
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.training.losses.dream import rectified_noise

PROCESSES = [Diffusion(prediction="x0"), Diffusion(prediction="v"), Flow()]


@pytest.fixture(params=range(len(PROCESSES)))
def setting(request):
    torch.manual_seed(0)
    process = PROCESSES[request.param]
    x_0, noise, t = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([50, 400, 900])
    return process, x_0, noise, process.add_noise(x_0, noise, t), t


def test_a_perfect_prediction_changes_nothing(setting):
    process, x_0, noise, x_t, t = setting
    perfect = process.target(x_0, noise, t)
    added = rectified_noise(process, x_0, noise, x_t, t, perfect, 1.0)
    torch.testing.assert_close(added, noise, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_error_of_the_noise_is_added_by_its_scale(setting, power):
    """With a prediction of another noise, the new noise is noise + s^p (noise - other), as in the paper."""
    process, x_0, noise, x_t, t = setting
    other = torch.randn_like(noise)
    signal, scale = (process.add_noise(*pair, t)[:, :1, :1, :1] for pair in (
        (torch.ones_like(x_0), torch.zeros_like(x_0)), (torch.zeros_like(x_0), torch.ones_like(x_0))))  # fmt: skip
    estimate = (x_t - scale * other) / signal  # of x_0
    prediction = process.from_x0(estimate, x_t, t)
    added = rectified_noise(process, x_0, noise, x_t, t, prediction, power)
    torch.testing.assert_close(added, noise + scale**power * (noise - other), atol=1e-3, rtol=1e-3)
