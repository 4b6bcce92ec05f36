"""Measures how well a run inpaints with RePaint's resampling and without, by the size of the holes.

    python -m ragaf_exp.evaluation.resampling run=DIR [items=100] [out=FILE.json] [masks=lama]
        [widths='[thin,medium,thick]'] [resamplings='[1,2,5,10]'] [steps=20] [jump=2] [drop='[text,sketch]']

Every run inpaints by RePaint, one whose task has no hole too; resamplings=1 is RePaint without resampling. A run of a task
with a hole is also measured with its own sampler. The same test items, masks and noise are used throughout, so differences
are paired. masks: kind of generated masks. drop: conditions that are left out. Calls of the denoiser are counted per image.
Writes JSON, by default resampling.json in the run folder, and prints a table. Example:

    python -m ragaf_exp.evaluation.resampling run=runs/latest items=50 resamplings='[1,5]' widths='[medium]'
"""

from __future__ import annotations

import sys
from pathlib import Path

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.paths import split
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.writable import check_file, check_folder
from ragaf_exp.runs.followed import split_followed

DEFAULTS = {"items": 100, "steps": 20, "jump": 2}
TEXTS = {"masks": "lama", "widths": "[thin,medium,thick]", "resamplings": "[1,2,5,10]", "drop": "[]"}


def main() -> None:
    arguments, followed = split_followed(sys.argv[1:])
    kinds = {"run": str, "out": str, **dict.fromkeys(DEFAULTS, int), **dict.fromkeys(TEXTS, str)}
    args = {**DEFAULTS, **TEXTS, **parse_args(arguments, kinds)}
    if "run" not in args:
        raise UserError("run=?: missing; give run=DIR, as in run=runs/latest")
    if args["items"] < 2:
        raise UserError(f"items={args['items']}: must be at least 2")
    lists = {name: [part for part in split(args[name].strip("[]")) if part] for name in ("widths", "resamplings", "drop")}
    if not all(part.isdecimal() for part in lists["resamplings"]):
        raise UserError(f"resamplings={args['resamplings']}: must be whole numbers, as [1,5]")
    run = Path(args["run"])
    out = Path(args["out"]) if "out" in args else run / "resampling.json"
    check_file(out, "out") if "out" in args else check_folder(run, "run", "give out=FILE.json")
    with stub_optional_imports():  # heavy: only once the arguments are checked
        from ragaf_exp.evaluation.resampling.measure import Plan, measure_run

    plan = Plan(args["items"], args["masks"], lists["widths"], [int(part) for part in lists["resamplings"]],
                args["steps"], args["jump"], lists["drop"])  # fmt: skip
    print(measure_run(run, out, plan, followed))
    print(out)


if __name__ == "__main__":
    guarded(main)
