"""Predicts the peak memory of a run before it is launched.

    python -m ragaf_exp.plan memory=PROFILE [overrides] [card=GIB] [out=FILE.json]
    python -m ragaf_exp.plan run=DIR [out=FILE.json]

Needs no device, data or weights. Predictions are for a CUDA device. card: plan for a GPU with this many GiB instead of
this machine's. memory=auto: choose the largest profile that fits. run: plan for a run folder's config; demo is the
packaged run. out: also write the plan as JSON. Example:

    python -m ragaf_exp.plan memory=16gb stage.batch=4 card=24
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.compose import AUTO, compose_config, load_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports

SCHEMA = 1
OWN = ("out", "card", "run")  # arguments that are not overrides


def main() -> None:
    overrides = [argument for argument in sys.argv[1:] if argument.partition("=")[0] not in OWN]
    own = parse_args([argument for argument in sys.argv[1:] if argument not in overrides], dict.fromkeys(OWN, str))
    out, began = own.get("out", ""), time.monotonic()
    if "run" in own:
        cfg = _of_run(own, overrides)
    else:
        cfg = compose_config(_for_card(overrides, own["card"]) if "card" in own else _for_this_machine(overrides))
    content = plan_of(cfg)
    print(table(content), f"predicted in {time.monotonic() - began:.0f} s", sep="\n")
    if out:
        from ragaf_exp.core.files import write_json

        write_json(Path(out), content)


def _of_run(own: dict[str, str], overrides: list[str]) -> Any:
    """Load the config of a run folder. Raises UserError with arguments that would change it."""
    if unused := [*overrides, *(f"{key}={own[key]}" for key in own if key == "card")]:
        raise UserError(f"{unused[0]}: not with run=, whose config is planned as it is")
    return load_config(Path(own["run"]) / "config.yaml")


def _for_this_machine(overrides: list[str]) -> list[str]:
    if AUTO not in overrides:
        return overrides
    from ragaf_exp.plan.auto import select_profile  # imports PyTorch

    return select_profile(overrides)


def _for_card(overrides: list[str], size: str) -> list[str]:
    """The overrides for a GPU with `size` GiB."""
    from ragaf_exp.plan.auto import select_profile
    from ragaf_exp.plan.available import gpu_of_size

    try:
        gib = float(size)
    except ValueError:
        gib = 0.0
    if not 0 < gib < math.inf:
        raise UserError(f"card={size}: must be a number of GiB above 0, e.g. 24")
    if AUTO in overrides:
        return select_profile(overrides, gpu_of_size(gib))
    return [*overrides, f"memory.budget={gib}"]


def plan_of(cfg: Any) -> dict[str, Any]:
    """The plan of a config as plain data: GiB by phase and kind, whether it fits, and what would make it fit."""
    with stub_optional_imports():
        from ragaf_exp.plan.budget import CONTEXT, FRAGMENTS, GIB, KERNELS, advice, needs
        from ragaf_exp.plan.guard import capacity
        from ragaf_exp.plan.savers import precision_of

    all_needs = needs(cfg)
    limit = capacity(cfg)
    over = [] if limit is None else [need for need in all_needs if need.total > limit * GIB]
    savers = advice(cfg, int(limit * GIB), all_needs) if over else []
    return {
        "schema": SCHEMA, "predicted": True, "precision": precision_of(cfg), "budget_gib": limit,
        "fits": None if limit is None else not over,
        "margin": {"context_gib": CONTEXT, "kernels_gib": KERNELS, "fragments_share": FRAGMENTS},
        "phases": [need.facts() for need in all_needs], "not_counted": left_out(cfg),
        "savers": [{"override": a.override, "total_gib": round(a.total / GIB, 3), "fits": a.fits, "cost": a.cost}
                   for a in savers],
    }  # fmt: skip


def left_out(cfg: Any) -> list[str]:
    """List the memory that the predictions leave out, one line each."""
    omitted = []
    if cfg.memory.compile:
        omitted.append("memory.compile: memory of torch.compile's kernels and of compilation")
    if cfg.cluster.nodes * cfg.cluster.tasks > 1:
        omitted.append("several processes: each is planned with the whole stage.batch although it trains on a share; the "
                       "gradient buckets need 64 MiB more, or twice the largest weight")  # fmt: skip
    if cfg.memory.shard:
        omitted.append("memory.shard: the predictions are for a whole model on one device")
    if cfg.eval.metrics:
        omitted.append("eval.metrics: networks that score images")
    return omitted


def table(content: dict[str, Any]) -> str:
    """The plan as text."""
    phases = content["phases"]
    kinds = [kind for kind in dict.fromkeys(k for p in phases for k in p["parts_gib"])]
    rows = [["GiB, predicted", *(p["phase"] for p in phases)]]
    rows.append(["items at once", *(str(p["micro_batch"]) for p in phases)])
    rows += [[kind, *(f"{p['parts_gib'].get(kind, 0):.3f}" for p in phases)] for kind in kinds]
    rows.append(["margin", *(f"{p['margin_gib']:.3f}" for p in phases)])
    rows.append(["total", *(f"{p['total_gib']:.3f}" for p in phases)])
    lines = ["  ".join(cell.ljust(16) if i == 0 else cell.rjust(10) for i, cell in enumerate(row)) for row in rows]
    lines += [f"not counted: {what}" for what in content["not_counted"]]
    limit = content["budget_gib"]
    verdict = {None: "no budget is set (memory.budget)", True: f"fits into {limit} GiB", False: f"exceeds {limit} GiB"}
    lines.append(verdict[content["fits"]])
    if content["fits"] is False and not any(s["fits"] for s in content["savers"]):
        lines.append("no known option makes it fit; choose a smaller model, data.size or stage.batch")
    for saver in content["savers"]:
        still = "" if saver["fits"] else "still too much: "
        lines.append(f"  {still}with {saver['override']}: {saver['total_gib']:.3f} GiB; cost: {saver['cost']}")
    return "\n".join(lines)


if __name__ == "__main__":
    guarded(main)
