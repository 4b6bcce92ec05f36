"""Exports a run and prints, as JSON, by how many bytes the peak of memory exceeded that before.

    python export_memory.py RUN OUT KIND...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ragaf_exp.core.imports import stub_optional_imports

with stub_optional_imports():
    from ragaf_exp.export.kinds import Options
    from ragaf_exp.export.trained import open_run
    from ragaf_exp.export.write import export


def resident(key: str) -> int:
    """VmRSS, what is in memory now, or VmHWM, the most that was since the last reset; mapped files count."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


def main(run: str, out: Path, kinds: list[str]) -> None:
    trained = open_run(run, {})  # imports the libraries' parts that this run needs
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    rows = export(trained, out, kinds, Options(), "")
    print(json.dumps({"peak": resident("VmHWM") - before, "checked": [row.checked for row in rows]}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
