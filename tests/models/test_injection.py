"""How region tokens reach pixels: added, as scale and shift, by attention; and what a region token is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import collate
from ragaf_exp.models.conditioning import RegionState, Text
from ragaf_exp.models.regions.encoder import RegionTextAttention, TimeFilm
from ragaf_exp.models.regions.injection import Cross, Film, Injection
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.step_noise import sample_step_noise

SHAPES = {"in": (6, 4, 8), "mid": (8, 2, 4), "out": (3, 8, 16)}
WIDTH = 8
KINDS = [Injection, Film, Cross]


def state(count: int = 2) -> RegionState:
    """One item whose first region is the left third and whose second is the right third; more of them are padding."""
    masks = {}
    for _, h, w in SHAPES.values():
        mask = torch.zeros(1, count, h, w)
        mask[:, 0, :, : w // 4] = mask[:, 1, :, w - w // 4 :] = 1
        masks[h, w] = mask
    real = torch.arange(count)[None] < 2
    return RegionState(torch.zeros(1, count, WIDTH), torch.zeros(1, count, WIDTH), torch.zeros(1, count, 3), real, masks)


def opened(kind: type[Injection], **options) -> Injection:
    torch.manual_seed(0)
    injection = kind(SHAPES, WIDTH, cross_layers=1, points=list(SHAPES), **options)
    with torch.no_grad():
        for parameter in injection.parameters():
            parameter.normal_(0, 0.5)
    return injection.eval()


@torch.no_grad()
def through(injection: Injection, tokens: torch.Tensor, regions: RegionState, hint: dict | None = None) -> dict:
    """Constant features after injection, by point."""
    injected = injection(tokens, regions, hint or {})
    return {p: injected.on_map(p, torch.ones(1, *SHAPES[p])) for p in {*injected.residuals, *injected.modulations}}


def tokens_for(count: int) -> torch.Tensor:
    return torch.randn(1, count, WIDTH, generator=torch.Generator().manual_seed(1)) * (torch.arange(count) < 2)[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_seen_in_its_region_and_not_beyond_its_reach(kind):
    injection, tokens = opened(kind), tokens_for(2)
    other = tokens.clone()
    other[:, 1] += 1
    before, after = through(injection, tokens, state()), through(injection, other, state())
    for point, (_, _, w) in SHAPES.items():
        moved = (before[point] != after[point]).any(1)[0].any(0)  # of each column
        reach = 1 if kind is Cross and point != "out" else 0
        assert moved[w - w // 4 - reach :].all() and not moved[: w - w // 4 - reach].any(), (kind, point)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_effect(kind):
    injection = opened(kind)
    plain = through(injection, tokens_for(2), state())
    padded = through(injection, tokens_for(5), state(5))
    for point in plain:
        torch.testing.assert_close(padded[point], plain[point])


@pytest.mark.parametrize("kind", KINDS)
def test_the_hint_comes_first_and_where_nothing_is_injected_it_is_passed_on(kind):
    hint = {p: torch.randn(1, *s, generator=torch.Generator().manual_seed(2)) for p, s in SHAPES.items()}
    fresh = kind(SHAPES, WIDTH, cross_layers=1, points=["in", "out"])
    injected = fresh(tokens_for(2), state(), hint)
    assert injected.residuals["mid"] is hint["mid"] and "mid" not in injected.modulations
    features = torch.randn(1, *SHAPES["in"])
    assert torch.equal(injected.on_map("in", features), features + hint["in"])
    on_device = through(opened(kind), tokens_for(2), state(), hint)
    alone = through(opened(kind), tokens_for(2), state())
    assert not any(torch.equal(on_device[p], alone[p]) for p in SHAPES)


def test_a_pixel_attends_most_to_its_own_region_and_more_slots_are_more_to_attend_to():
    one, two = opened(Cross), opened(Cross, slots=2)
    attended = one._bias(state().soft_masks[2, 4], state().region_mask).exp()[0].view(2, 4, 3)
    assert (attended[:, 0, 1] > attended[:, 1, 1]).all() and (attended[:, 1, 1] > 0.3).all()
    assert (attended[:, 2:, 1] < 1e-6).all() and (attended[..., 0] == 1).all()
    shapes = {n: p.shape for n, p in two.named_parameters()}
    assert {n for n, p in one.named_parameters() if shapes[n] != p.shape} == {
        f"out.{p}.kv.{x}" for p in ("in", "mid") for x in ("weight", "bias")
    }
    assert through(two, tokens_for(2), state())["in"].isfinite().all()
    injected = one(tokens_for(2), state(), {})
    assert set(injected.modulations) == {"in", "mid"} and set(injected.residuals) == {"out"}, "full resolution is added to"


def test_what_cannot_be_split_into_heads_is_refused():
    with pytest.raises(UserError, match="injection.heads=3"):
        Cross(SHAPES, WIDTH, 1, heads=3)


# --- whole models


@pytest.fixture(scope="module")
def world(tiny, tmp_path_factory):
    return assemble(compose_config(tiny), RunFolder(tmp_path_factory.mktemp("world")))


def model_of(world, tiny: list[str], *words: str) -> torch.nn.Module:
    return make_model(replace(world, cfg=compose_config([*tiny, *words])), "refine")


OPTIONS = ["injection=film", "injection=cross injection.slots=2", "injection=appended", "ragaf.pooled_levels=0",
           "ragaf.timestep=true", "ragaf.learn_temperature=true", "fusion=hybrid", "fusion=gated",
           "injection.words=true"]  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_every_parameter_of_an_option_gets_a_gradient(option, tiny, world):
    model = model_of(world, tiny, *option.split())
    batch = collate([world.examples("train")[i] for i in range(4)])
    x0 = world.codec.encode(batch.image)
    optimizer, objective = torch.optim.AdamW(model.parameters(), lr=1e-3), Objective(world.diffusion)
    for seed in range(4):  # what a zero-initialised gate hides, shows once the gates before it have moved
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(seed)
        noise = sample_step_noise(world.diffusion, x0.shape, 1000, {}, 0.0, generator)
        objective(model, batch, x0, noise)["loss"].backward()
        optimizer.step()
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    assert [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9 * largest] == []


def test_regions_pool_every_level_that_the_hint_has(tiny, world):
    for word, levels in (("1", 1), ("2", 2), ("0", 2)):
        ragaf = model_of(world, tiny, f"ragaf.pooled_levels={word}").ragaf
        assert len(ragaf.levels) == levels and ragaf.pooled.in_features == 16 * levels
    with pytest.raises(UserError, match=r"ragaf.pooled_levels=3.*take 0"):
        model_of(world, tiny, "ragaf.pooled_levels=3")


def test_a_timestep_conditioned_token_starts_as_it_was_and_then_follows_the_timestep():
    film, tokens, t = TimeFilm(8), torch.randn(2, 3, 8), torch.tensor([0.1, 0.9])
    assert torch.equal(film(tokens, t), tokens)
    torch.nn.init.normal_(film.mlp[-1].weight)
    same = tokens[:1].expand(2, -1, -1)
    moved = film(same, t)
    assert not torch.allclose(moved[0], moved[1]) and not torch.allclose(moved, same)


def test_a_low_temperature_sharpens_and_a_learnt_one_starts_there():
    torch.manual_seed(0)
    x, text = torch.randn(1, 5, 8), Text(torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool))
    attention = RegionTextAttention(8, 8, heads=2)
    weights = {}
    for temperature in (0.1, 1.0, 10.0):
        attention.temperature = temperature
        weights[temperature] = attention(x, text)[1]
    peaks = [weights[k].amax(-1).mean().item() for k in (10.0, 1.0, 0.1)]
    assert peaks == sorted(peaks) and peaks[2] > 1.5 * peaks[0]
    learnt = RegionTextAttention(8, 8, heads=2, temperature=0.1, learn_temperature=True)
    learnt.load_state_dict(attention.state_dict(), strict=False)
    torch.testing.assert_close(learnt(x, text)[1], weights[0.1])
    with torch.no_grad():
        learnt.log_sharpness.fill_(-100.0)
    torch.testing.assert_close(learnt(x, text)[1], torch.full((1, 5, 4), 0.2)), "of four words and nothing"
