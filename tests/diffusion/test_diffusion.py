"""The forward process: its identities for every prediction type, its ends, its loss weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.core.errors import UserError
from ragaf_exp.diffusion.process import Diffusion

KINDS = ("x0", "v", "eps")
PROCESSES = {kind: Diffusion(prediction=kind, zero_terminal_snr=kind != "eps") for kind in KINDS}
SCHEDULES = ("squaredcos_cap_v2", "linear", "scaled_linear")


def pictures(seed: int, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """x0 in [-1,1] and noise, (B,4,5,6) both, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.rand((batch, 4, 5, 6), generator=generator, dtype=torch.float64) * 2 - 1
    return x0, torch.randn((batch, 4, 5, 6), generator=generator, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.lists(st.integers(0, 980), min_size=3, max_size=3))
def test_the_target_leads_back_to_x0(kind, seed, times):
    process = PROCESSES[kind]
    x0, noise = pictures(seed)
    t = torch.tensor(times)
    x_t = process.add_noise(x0, noise, t)
    torch.testing.assert_close(process.to_x0(process.target(x0, noise, t), x_t, t), x0, atol=1e-6, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(0, 999))
def test_x_t_is_the_mixture_that_the_schedule_says(kind, seed, time):
    process = PROCESSES[kind]
    x0, noise = pictures(seed)
    t = torch.full((3,), time)
    abar = process.abar[time]
    x_t = process.add_noise(x0, noise, t)
    torch.testing.assert_close(x_t, abar.sqrt() * x0 + (1 - abar).sqrt() * noise)
    wanted = {"x0": x0, "eps": noise, "v": abar.sqrt() * noise - (1 - abar).sqrt() * x0}[kind]
    torch.testing.assert_close(process.target(x0, noise, t), wanted)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(3)))
def test_every_item_has_its_own_timestep(seed, order):
    process = PROCESSES["v"]
    x0, noise = pictures(seed)
    t = torch.tensor([10, 500, 990])
    together = process.add_noise(x0, noise, t)
    apart = process.add_noise(x0[order], noise[order], t[order])
    assert torch.equal(together[order], apart)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_last_step_is_pure_noise(schedule):
    process = Diffusion(schedule=schedule, zero_terminal_snr=True)
    x0, noise = pictures(0)
    assert process.abar[-1] == 0
    assert torch.equal(process.add_noise(x0, noise, torch.full((3,), 999)), noise)
    assert (process.abar.diff() < 0).all() and process.abar[0] > 0.99, "from almost clean, ever noisier"
    assert Diffusion(schedule=schedule, zero_terminal_snr=False).abar[-1] > 0


def test_prediction_types_agree_where_x0_is_right():
    """An estimate of x0 has the same weighted error in all three parametrisations."""
    x0, noise = pictures(1)
    guess = x0 + 0.1 * pictures(2)[1]
    t = torch.tensor([5, 400, 900])
    errors = []
    for kind in KINDS:
        process = Diffusion(prediction=kind, zero_terminal_snr=False, min_snr=5.0, snr_offset=0.0)
        abar = process.abar[t][:, None, None, None]
        x_t = process.add_noise(x0, noise, t)
        implied = (x_t - abar.sqrt() * guess) / (1 - abar).sqrt()  # the noise that the guess of x0 implies
        prediction = process.target(guess, implied, t)
        error = (prediction - process.target(x0, noise, t)).square().mean((1, 2, 3))
        errors.append(process.weight(t) * error)
    torch.testing.assert_close(errors[0], errors[1], rtol=1e-4, atol=0)
    torch.testing.assert_close(errors[0], errors[2], rtol=1e-4, atol=0)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.floats(0.5, 20), st.floats(0, 2), st.lists(st.integers(0, 999), min_size=1, max_size=5))
def test_min_snr_weights(kind, gamma, offset, times):
    process = Diffusion(prediction=kind, zero_terminal_snr=False, min_snr=gamma, snr_offset=offset)
    snr = [float(process.abar[i] / (1 - process.abar[i])) for i in times]
    per_x0 = {"x0": [1.0 for _ in snr], "v": [s + 1 for s in snr], "eps": snr}[kind]
    wanted = [min(s + offset, gamma) / p for s, p in zip(snr, per_x0, strict=True)]
    torch.testing.assert_close(process.weight(torch.tensor(times)), torch.tensor(wanted), rtol=1e-4, atol=1e-7)


def test_no_weighting_and_the_ends_of_the_schedule():
    t = torch.tensor([0, 500, 999])
    assert torch.equal(Diffusion(min_snr=0).weight(t), torch.ones(3))
    for kind in ("x0", "v"):
        weights = Diffusion(prediction=kind).weight(t)
        assert weights.isfinite().all() and (weights > 0).all(), "the offset keeps the noisiest step in training"
    assert Diffusion(prediction="x0", snr_offset=0.0).weight(t)[-1] == 0


@pytest.mark.parametrize(
    ("bad", "key"),
    [
        ({"prediction": "x1"}, "diffusion.prediction=x1"),
        ({"prediction": "eps"}, "diffusion.prediction=eps"),
        ({"schedule": "straight"}, "diffusion.schedule=straight"),
        ({"timesteps": 0}, "diffusion.timesteps=0"),
        ({"timesteps": -5}, "diffusion.timesteps=-5"),
        ({"min_snr": float("nan")}, "diffusion.min_snr=nan"),
        ({"min_snr": -1.0}, "diffusion.min_snr=-1.0"),
        ({"snr_offset": -1.0}, "diffusion.snr_offset=-1.0"),
    ],
)
def test_bad_values_are_named(bad, key):
    with pytest.raises(UserError, match=key):
        Diffusion(**bad)
