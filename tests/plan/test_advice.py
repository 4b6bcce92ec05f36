"""As few savers as make a plan fit: bisection finds what a search one by one finds."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import COARSE
from ragaf_exp.plan import budget
from ragaf_exp.plan.budget import GIB, Need
from ragaf_exp.plan.predict import Peak, phases_of

SAVES = {"memory.checkpointing": 3, "memory.ema": 1, "memory.optimizer": 2, "stage.accumulate": 1}


@pytest.mark.parametrize("limit", [1, 2, 5, 8])
def test_bisection_finds_the_first_savers_that_suffice(tiny, monkeypatch, limit):
    defaults = compose_config([*tiny, "stage.run=[coarse]"])

    def needs(cfg, phases=None):
        saved = sum(n for key, n in SAVES.items() if OmegaConf.select(cfg, key) != OmegaConf.select(defaults, key))
        return [Need(Peak(p, 1, {"weights": (9 - saved if p == COARSE else 1) * GIB})) for p in phases or phases_of(cfg)]

    monkeypatch.setattr(budget, "needs", needs)
    current = needs(defaults)
    advice = budget._combined(defaults, int((limit + 0.8) * GIB), [COARSE], current)
    steps = list(budget._cumulated(defaults, [COARSE]))
    sizes = [needs(cfg, (COARSE,))[0].total for cfg, _, _ in steps]
    first = next((i for i, size in enumerate(sizes) if size <= (limit + 0.8) * GIB), len(steps) - 1)
    assert advice[0].override == steps[first][1] and advice[0].total == sizes[first]
    assert advice[0].fits is (sizes[first] <= (limit + 0.8) * GIB)
    assert advice[0].fits is (limit >= 2), "with all savers 9 - 7 GiB are left"


BLOCKS = tuple(size * GIB for size in (3, 3, 3, 1, 1, 1, 1))


def swapping(monkeypatch, other: float):
    """A stand-in for `needs`: 14 GiB of blocks, of which swapping leaves two on the device, and `other` GiB."""
    plans: list[tuple[int, str]] = []

    def needs(cfg, phases=None):
        plans.extend((cfg.memory.swap, phase) for phase in phases or ())
        swapped = sorted(BLOCKS[len(BLOCKS) - cfg.memory.swap :])
        size = int((14 + other) * GIB) - sum(swapped[:-2])
        return [Need(Peak(p, 1, {"weights": size}, BLOCKS)) for p in phases or phases_of(cfg)]

    monkeypatch.setattr(budget, "needs", needs)
    return needs, plans


@pytest.mark.parametrize(("limit", "blocks"), [(14.9, 3), (13.9, 4), (12.9, 5), (11.9, 6), (8.9, 7)])
def test_as_few_blocks_as_fit_are_swapped(tiny, monkeypatch, limit, blocks):
    """The last blocks are small, and two of the swapped ones are on the device."""
    cfg = compose_config([*tiny, "stage.run=[coarse]", "memory.checkpointing=true"])
    needs, plans = swapping(monkeypatch, other=0.3)
    advised = [a for a in budget.advice(cfg, int(limit * GIB), needs(cfg)) if "swap" in a.override]
    assert [a.override for a in advised] == [f"memory.swap={blocks}"] and advised[0].fits
    assert advised[0].total <= limit * GIB and {swap for swap, _ in plans} <= {0, blocks}, "the estimate is right at once"


def test_an_estimate_that_a_plan_exceeds_is_raised(tiny, monkeypatch):
    """Here swapping saves a gibibyte less than the blocks' bytes."""
    cfg = compose_config([*tiny, "stage.run=[coarse]", "memory.checkpointing=true"])
    plain, _ = swapping(monkeypatch, other=0.3)

    def needs(cfg, phases=None):
        more = GIB if cfg.memory.swap else 0
        return [Need(Peak(n.peak.phase, 1, {"weights": n.peak.bytes + more}, BLOCKS)) for n in plain(cfg, phases)]

    monkeypatch.setattr(budget, "needs", needs)
    (swap,) = (a for a in budget.advice(cfg, int(13.9 * GIB), needs(cfg)) if "swap" in a.override)
    assert swap.override == "memory.swap=5" and swap.total <= 13.9 * GIB


def test_blocks_are_swapped_after_what_costs_less_and_only_where_they_can_be(tiny, monkeypatch):
    """Swapping needs checkpointing and blocks that are frozen, and comes behind everything that costs less time."""
    needs, _ = swapping(monkeypatch, other=0.3)
    cfg = compose_config([*tiny, "stage.run=[coarse]"])
    (combined,) = budget.advice(cfg, int(9.9 * GIB), needs(cfg))
    keys = [override.partition("=")[0] for override in combined.override.split()]
    assert combined.fits and keys[-1] == "memory.swap" and keys.index("memory.checkpointing") < len(keys) - 1
    assert "memory.swap=7" in combined.override and "copies of frozen blocks" in combined.cost
    (none,) = budget.advice(cfg, 6 * GIB, needs(cfg))
    assert not none.fits and "memory.swap=7" in none.override
    for settings, blocks in ((["memory.compile=true"], BLOCKS), ([], ())):
        trained = compose_config([*tiny, "stage.run=[coarse]", "memory.checkpointing=true", *settings])
        current = [Need(Peak(n.peak.phase, 1, n.peak.parts, blocks)) for n in needs(trained)]
        assert not any("swap" in a.override for a in budget.advice(trained, int(13.9 * GIB), current))


@pytest.mark.long
def test_a_plan_of_flux_size_is_brought_under_its_budget_by_swapping():
    """In bf16 the blocks take 22.2 GiB: of stage 1 alone, the 4-bit base or swapping suffices."""
    cfg = compose_config(["backbone=flux", "memory=24gb", "memory.base=bfloat16", "stage.run=[coarse]"])
    limit = 18 * GIB
    current = budget.needs(cfg, (COARSE,))
    assert len(current[0].peak.blocks) == 57 and current[0].total > limit
    quantised, swapped = budget.advice(cfg, limit, current)
    assert quantised.override == "memory.base=nf4" and swapped.override.startswith("memory.swap=")
    number = int(swapped.override.partition("=")[2])
    assert swapped.fits and swapped.total <= limit and 0 < number < 57
    cfg.memory.swap = number
    assert budget.needs(cfg, (COARSE,))[0].total == swapped.total, "what is advised was planned"
