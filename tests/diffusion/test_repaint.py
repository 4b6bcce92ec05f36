"""RePaint: its schedule, its steps, and what resampling is worth."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.keeping import Known
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.diffusion.repaint import RePaint, _Levels, walk
from ragaf_exp.models.model import Prediction


def batch_of(count: int) -> Batch:
    nothing = torch.zeros(count, 1)
    return Batch([str(i) for i in range(count)], [""] * count, nothing, *[nothing] * 6)


class Gaussian:
    """The exact denoiser of x_0 ~ N(0, S) for images whose two pixels have correlation `rho`."""

    def __init__(self, process: Diffusion, rho: float):
        self.process, self.covariance = process, torch.tensor([[1.0, rho], [rho, 1.0]])

    def condition(self, batch, keep):
        return None

    def with_start(self, conditions, coarse):
        return conditions

    def denoise(self, x_t, t, conditions):
        abar = float(self.process.abar[int(t[0])])
        noisy = abar * self.covariance + (1 - abar) * torch.eye(2)
        gain = abar**0.5 * self.covariance @ torch.linalg.inv(noisy)
        return Prediction((x_t.flatten(1) @ gain.T).view_as(x_t))


def test_the_papers_schedule_has_its_counts():
    path = list(walk(250, 10, 10))
    steps = [b - a for a, b in zip(path, path[1:], strict=False)]
    assert steps.count(-1) == 2410 and steps.count(1) == 2160 and len(steps) == 4570
    assert path[0] == 250 and path[-1] == 0


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 6))
def test_any_schedule_goes_from_noise_to_data_in_single_steps(steps, jump, resamplings):
    path = list(walk(steps, min(jump, steps), resamplings))
    assert path[0] == steps == max(path) and path[-1] == 0 == min(path)
    assert {abs(b - a) for a, b in zip(path, path[1:], strict=False)} == {1}
    if resamplings == 1:
        assert len(path) == steps + 1


def sampled(resamplings: int, rho: float = 0.9, count: int = 3000, steps: int = 25) -> tuple[torch.Tensor, RePaint]:
    """Paint the second pixel of images whose first one is given."""
    process = Diffusion(prediction="x0")
    given = torch.randn((count, 1, 1, 2), generator=torch.Generator().manual_seed(1))
    redo = torch.tensor([False, True]).expand(count, 1, 1, 2)
    sampler = RePaint(process, lambda batch: Known(given, redo), 0, steps, 5, resamplings)
    noise = torch.randn((count, 1, 1, 2), generator=torch.Generator().manual_seed(2))
    out, _ = sampler.sample(Gaussian(process, rho), batch_of(count), noise)
    assert (out[..., 0] == given[..., 0]).all(), "known pixels are pasted at the end"
    return out.flatten(1), sampler


@pytest.mark.long
def test_resampling_makes_the_painted_pixels_fit_the_known_ones():
    """The right answer has correlation 0.9; without resampling it is lower."""
    correlation = {r: float(torch.corrcoef(sampled(r)[0].T)[0, 1]) for r in (1, 5)}
    assert correlation[1] < 0.8 < 0.84 < correlation[5] < 0.93, correlation
    assert float(sampled(5)[0][:, 1].std()) == pytest.approx(1, abs=0.12)


def test_calls_are_counted():
    _, sampler = sampled(2, count=2)
    assert sampler.calls.denoisings == 25 + 4 * 5 and sampler.calls.renoisings == 20


def test_noise_belongs_to_the_item_and_not_to_the_batch():
    whole, first = sampled(2, count=5)[0], None
    process = Diffusion(prediction="x0")
    given = torch.randn((5, 1, 1, 2), generator=torch.Generator().manual_seed(1))[2:3]
    redo = torch.tensor([False, True]).expand(1, 1, 1, 2)
    sampler = RePaint(process, lambda batch: Known(given, redo), 0, 25, 5, 2)
    noise = torch.randn((5, 1, 1, 2), generator=torch.Generator().manual_seed(2))[2:3]
    batch = Batch(["2"], [""], *[torch.zeros(1, 1)] * 7)
    first, _ = sampler.sample(Gaussian(process, 0.9), batch, noise)
    assert torch.allclose(first.flatten(1)[0], whole[2], atol=1e-5)


def test_climbing_reaches_the_distribution_of_the_level():
    process = Diffusion()
    levels = _Levels(process, 20, torch.zeros(4000, 1, 1, 1))
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.full((4000, 1, 1, 1), 0.7)
    x = levels.noised(x_0, torch.randn(x_0.shape, generator=generator), 6)
    for level in range(6, 12):
        x = levels.climb(x, level, level + 1, torch.randn(x_0.shape, generator=generator))
    assert float(x.mean()) == pytest.approx(0.7 * levels.signal[12], abs=0.05)
    assert float(x.std()) == pytest.approx(levels.scale[12], abs=0.03)
    assert levels.timesteps[-1] == process.timesteps - 1 and levels.signal[0] == 1 and levels.scale[0] == 0


@pytest.mark.parametrize("key, values", [("jump", (10, 11, 1)), ("resamplings", (10, 5, 0))])
def test_wrong_settings_are_one_line(key, values):
    with pytest.raises(UserError, match=f"{key}=.*must be from"):
        RePaint(Diffusion(), lambda batch: Known(torch.zeros(1), torch.zeros(1)), 0, *values)
