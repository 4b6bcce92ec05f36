"""Writes the report of a run, or a comparison of several.

    python -m ragaf_exp.report run=DIR [out=FILE.html]
    python -m ragaf_exp.report runs='[A,B,C]' [out=FILE.html] [tables=DIR] [items=same|common]

runs: all are compared with the first; a folder of run folders, such as a sweep's, stands for all of them. The tables are
also written as Markdown and LaTeX, next to the page or in `tables`. Runs of a study (study.member=) are grouped by member
over their seeds. items=common compares runs that were evaluated on different items on their common items. Example:

    python -m ragaf_exp.report runs='[runs/ablation]' out=ablation.html
"""

from __future__ import annotations

import sys
from pathlib import Path

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.packaged import check_run
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.writable import check_file, check_folder
from ragaf_exp.report import is_study, write_comparison, write_report, write_study
from ragaf_exp.report.compare.runs import is_run, sweep_members

ITEMS = ("same", "common")


def main() -> None:
    """Write the report or the comparison and print where."""
    arguments = parse_args(sys.argv[1:], {"run": str, "runs": list, "out": str, "tables": str, "items": str})
    runs = [*arguments.get("runs", []), *([arguments["run"]] if "run" in arguments else [])]
    items = arguments.get("items", "same")
    if not runs:
        raise UserError("run=?: missing; give run=DIR, as in run=runs/latest, or runs='[A,B]' to compare")
    if items not in ITEMS:
        raise UserError(f"items={items}: must be {' or '.join(ITEMS)}")
    out = Path(arguments["out"]) if "out" in arguments else None
    tables = Path(arguments["tables"]) if "tables" in arguments else None
    if out is not None:
        check_file(out, "out")
        out.parent.mkdir(parents=True, exist_ok=True)
    if tables is not None:
        check_folder(tables, "tables")
    if len(runs) > 1 or _is_sweep(Path(runs[0])):
        write = write_study if is_study(runs) else write_comparison
        written = write(runs, out, tables, items == "common")
    elif unused := [key for key in ("tables", "items") if key in arguments]:
        raise UserError(f"{unused[0]}=: is for comparisons; name several runs, as runs='[A,B]', or a sweep's folder")
    else:
        if out is None and Path(runs[0]).is_dir():
            check_run(Path(runs[0]), "give out=FILE.html")
        written = [write_report(Path(runs[0]), out)]
    print(*written, sep="\n")


def _is_sweep(path: Path) -> bool:
    return path.is_dir() and not is_run(path.resolve()) and bool(sweep_members(path))


if __name__ == "__main__":
    guarded(main)
