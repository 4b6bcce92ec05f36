"""The table of families and profiles: a cell per pair, and a star where a plan exceeds its profile."""

from __future__ import annotations

from types import SimpleNamespace

from ragaf_exp.plan import budget, families


def test_a_plan_above_its_budget_has_a_star(monkeypatch):
    planned = []

    def needs(cfg, phases):
        planned.append((cfg.memory.budget, cfg.data.size, phases))
        return [SimpleNamespace(total=size * budget.GIB) for size in (20, 12.25)]

    monkeypatch.setattr(budget, "needs", needs)
    lines = list(families.rows(["data.size=256"]))
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| `{name}`" for name in families.FAMILIES]
    assert all(line.endswith("| 20.00, 12.25* | 20.00, 12.25 | 20.00, 12.25 |") for line in lines[2:])
    assert planned[:3] == [(limit, 256, ("refine", "validation")) for limit in (11.5, 23, 78)]
    assert len(planned) == 3 * len(families.FAMILIES)
