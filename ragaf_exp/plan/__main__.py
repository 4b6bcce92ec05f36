"""Predicts the peak memory of a run before it is launched.

    python -m ragaf_exp.plan memory=PROFILE [overrides] [card=GIB] [out=FILE.json]

Needs no device, no data and no weights. Predictions are for a CUDA device. card: plan for a GPU of that many GiB instead
of this machine's. memory=auto: choose the largest profile that fits. Example:

    python -m ragaf_exp.plan memory=16gb stage.batch=4 card=24
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.compose import AUTO, compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports

SCHEMA = 1
OWN = ("out", "card")  # what isn't an override


def main() -> None:
    words = [word for word in sys.argv[1:] if word.partition("=")[0] not in OWN]
    own = parse_args([word for word in sys.argv[1:] if word not in words], dict.fromkeys(OWN, str))
    out, began = own.get("out", ""), time.monotonic()
    content = planned(compose_config(_for_card(words, own["card"]) if "card" in own else _for_this_machine(words)))
    print(table(content), f"predicted in {time.monotonic() - began:.0f} s", sep="\n")
    if out:
        from ragaf_exp.core.files import write_json

        write_json(Path(out), content)


def _for_this_machine(words: list[str]) -> list[str]:
    if AUTO not in words:
        return words
    from ragaf_exp.plan.auto import chosen  # imports PyTorch

    return chosen(words)


def _for_card(words: list[str], size: str) -> list[str]:
    """The overrides as for a card of `size` GiB."""
    from ragaf_exp.plan.auto import chosen
    from ragaf_exp.plan.available import gpu_of_size

    try:
        gib = float(size)
    except ValueError:
        gib = 0.0
    if not 0 < gib < math.inf:
        raise UserError(f"card={size}: must be a number of GiB above 0, as 24")
    if AUTO in words:
        return chosen(words, gpu_of_size(gib))
    return [*words, f"memory.budget={gib}"]


def planned(cfg: Any) -> dict[str, Any]:
    """The plan of a config as plain data: GiB by phase and kind, whether it fits, and what would make it fit."""
    with stub_optional_imports():
        from ragaf_exp.plan.budget import CONTEXT, FRAGMENTS, GIB, KERNELS, advice, needs, precision_of
        from ragaf_exp.plan.guard import capacity

    found = needs(cfg)
    limit = capacity(cfg)
    over = [] if limit is None else [need for need in found if need.total > limit * GIB]
    savers = advice(cfg, int(limit * GIB), found) if over else []
    return {
        "schema": SCHEMA, "predicted": True, "precision": precision_of(cfg), "budget_gib": limit,
        "fits": None if limit is None else not over,
        "margin": {"context_gib": CONTEXT, "kernels_gib": KERNELS, "fragments_share": FRAGMENTS},
        "phases": [need.facts() for need in found], "not_counted": left_out(cfg),
        "savers": [{"override": a.override, "total_gib": round(a.total / GIB, 3), "fits": a.fits, "cost": a.cost}
                   for a in savers],
    }  # fmt: skip


def left_out(cfg: Any) -> list[str]:
    """What the figures do not hold."""
    found = []
    if cfg.memory.compile:
        found.append("memory.compile: what torch.compile's kernels keep, and what compiling takes")
    if cfg.cluster.nodes * cfg.cluster.tasks > 1:
        found.append("several processes: each is planned with the whole stage.batch, of which it takes its share; the "
                     "gradients that it sends need twice 32 MiB more, or twice its largest weight")  # fmt: skip
    if cfg.memory.shard:
        found.append("memory.shard: the figures are of a whole model on one device")
    if cfg.eval.metrics:
        found.append("eval.metrics: networks that score images")
    return found


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
        lines.append("nothing that is known here makes it fit: a smaller model, data.size or stage.batch would")
    for saver in content["savers"]:
        still = "" if saver["fits"] else "still too much: "
        lines.append(f"  {still}with {saver['override']}: {saver['total_gib']:.3f} GiB; cost: {saver['cost']}")
    return "\n".join(lines)


if __name__ == "__main__":
    guarded(main)
