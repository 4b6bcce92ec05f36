"""Measures every speed claim of the README.

    python -m ragaf_exp.bench [only=NAME] [out=bench.json]

Each row is measured next to its reference in one process, in alternation, and compared by medians: machines are shared
and noisy. Example:

    python -m ragaf_exp.bench only=regions_graph_512
"""

from __future__ import annotations

import sys
from pathlib import Path

from ragaf_exp.commands.benches.cache import cache
from ragaf_exp.commands.benches.evaluation import frechet_distance, sketch_fidelity
from ragaf_exp.commands.benches.gpu import gpu
from ragaf_exp.commands.benches.graph_attention import graph_attention
from ragaf_exp.commands.benches.photos import photos
from ragaf_exp.commands.benches.regions import regions_graph, soft_masks
from ragaf_exp.commands.benches.savers import savers
from ragaf_exp.commands.benches.training import scenes, training_step
from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.writable import check_file

SCHEMA = 1


def main() -> None:
    args = parse_args(sys.argv[1:], {"only": str, "out": str})
    chosen = args.get("only")
    if chosen is not None and chosen not in BENCHES:
        raise UserError(f"only={chosen}: unknown benchmark; known are {', '.join(BENCHES)}")
    if "out" in args:
        check_file(Path(args["out"]), "out")
    from ragaf_exp.core.files import write_json
    from ragaf_exp.runs.environment import environment

    rows = [line for name, bench in BENCHES.items() if chosen in (None, name) for line in bench()]
    for line in rows:
        against = f"  reference {line['reference']:.4g}  ratio {line['ratio']:.2f}" if "reference" in line else ""
        print(f"{line['name']:34}{line['value']:>10.4g} {line['unit']}{against}  {line['what']}")
    if "out" in args:
        Path(args["out"]).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(args["out"]), {"schema": SCHEMA, "environment": environment(), "rows": rows})


BENCHES = {
    "training_step": training_step, "scenes": scenes, "regions_graph": regions_graph, "soft_masks": soft_masks,
    "graph_attention": graph_attention, "cache": cache, "frechet": frechet_distance,
    "sketch_fidelity": sketch_fidelity, "savers": savers, "photos": photos, "gpu": gpu,
}  # fmt: skip


if __name__ == "__main__":
    guarded(main)
