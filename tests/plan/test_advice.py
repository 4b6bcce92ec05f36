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
