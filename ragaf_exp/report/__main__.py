"""python -m ragaf_exp.report run=DIR [out=FILE.html]: writes a run's report again; runs='[DIR]' names it as
well.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ragaf_exp.cli import guarded, parse_args
from ragaf_exp.errors import UserError
from ragaf_exp.report import write_report


def main() -> None:
    """Write the report and print where. Raises UserError where not exactly one run is named."""
    arguments = parse_args(sys.argv[1:], {"run": str, "runs": list, "out": str})
    runs = [*arguments.get("runs", []), *([arguments["run"]] if "run" in arguments else [])]
    if len(runs) != 1:
        raise UserError(
            f"run={','.join(runs) or '?'}: a report shows one run; give run=DIR, as in run=runs/latest"
        )
    out = Path(arguments["out"]) if "out" in arguments else None
    print(write_report(Path(runs[0]), out))


if __name__ == "__main__":
    guarded(main)
