"""Measures how well single regions of a trained run can be edited: prompts, importance, and keeping the rest.

    python -m ragaf_exp.evaluation.editing run=DIR [items=200] [out=FILE.json] [only='[prompt,keep]']

The first test items are sampled with the same noise, without and with each edit. only: some of prompt (one region has
another colour than the caption gives it), repeated (scenes with several objects of one shape: by the caption, and with
region prompts), prompted (every object's regions have its phrase), importance (0 and 2 of every object), keep (one region
is sampled again in a finished image). Writes JSON, by default editing.json in the run folder, a picture of the first
items next to it, and prints a table. Example:

    python -m ragaf_exp.evaluation.editing run=runs/latest items=50 only='[prompt]'
"""

from __future__ import annotations

import sys
from pathlib import Path

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.packaged import check_run
from ragaf_exp.config.paths import split
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.writable import check_file
from ragaf_exp.runs.followed import split_followed

ITEMS = 200
MEASURES = ("prompt", "repeated", "prompted", "importance", "keep")


def main() -> None:
    arguments, followed = split_followed(sys.argv[1:])
    args = parse_args(arguments, {"run": str, "out": str, "items": int, "only": str})
    if "run" not in args:
        raise UserError("run=?: missing; give run=DIR, as in run=runs/latest")
    if (items := args.get("items", ITEMS)) < 2:
        raise UserError(f"items={items}: must be at least 2")
    only = split(args["only"].strip("[]")) if "only" in args else list(MEASURES)
    if unknown := [name for name in only if name not in MEASURES]:
        raise UserError(f"only={unknown[0]}: unknown; take some of {', '.join(MEASURES)}")
    run = Path(args["run"])
    out = Path(args["out"]) if "out" in args else run / "editing.json"
    check_file(out, "out") if "out" in args else check_run(run, "give out=FILE.json")
    with stub_optional_imports():  # heavy: only once the arguments are checked
        from ragaf_exp.evaluation.editing.measure import measure_run

    print(measure_run(run, out, items, only, followed))
    print(out)


if __name__ == "__main__":
    guarded(main)
