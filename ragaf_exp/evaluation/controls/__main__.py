"""Tests with interventions whether a trained run follows its conditions, region by region.

    python -m ragaf_exp.evaluation.controls run=DIR [out=FILE.json] [items=100]

The same test items are sampled again with the same noise, each time with one condition changed: shuffled captions,
exchanged colours, one word changed. Writes JSON, by default controls.json in the run folder, and next to it a Markdown
table and an image of the first items under every change. Example:

    python -m ragaf_exp.evaluation.controls run=runs/latest items=50
"""

from __future__ import annotations

import sys
from pathlib import Path

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.packaged import check_run
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.writable import check_file
from ragaf_exp.runs.followed import split_followed

ITEMS = 100  # by default; each is sampled once for every control


def main() -> None:
    """Run the controls and print the table and the paths of the files."""
    arguments, followed = split_followed(sys.argv[1:])
    args = parse_args(arguments, {"run": str, "out": str, "items": int})
    items = args.get("items", ITEMS)
    if "run" not in args:
        raise UserError("run=?: missing; give run=DIR, as in run=runs/latest")
    if items < 2:
        raise UserError(f"items={items}: must be at least 2, as captions change places")
    if "out" in args:
        check_file(Path(args["out"]), "out")
    elif Path(args["run"]).is_dir():
        check_run(Path(args["run"]), "give out=FILE.json")
    with stub_optional_imports():  # heavy: only once the arguments are known to be good
        from ragaf_exp.evaluation.controls.score import run_controls

    written = run_controls(Path(args["run"]), Path(args["out"]) if "out" in args else None, items, followed)
    print(written[1].read_text())
    print(*written, sep="\n")


if __name__ == "__main__":
    guarded(main)
