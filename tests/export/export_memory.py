"""Exports a run and prints, as JSON, by how many bytes the peak of memory exceeded that before.

    python export_memory.py RUN OUT KINDS...

KINDS: kinds of export, separated by spaces. Each has a process, forked when the libraries are imported, a folder in OUT and
a line.
"""

from __future__ import annotations

import json
import os
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


def measure(run: str, out: Path, kinds: list[str]) -> None:
    trained = open_run(run, {})  # imports the libraries' parts that this run needs
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    rows = export(trained, out, kinds, Options(), "")
    print(json.dumps({"peak": resident("VmHWM") - before, "checked": [row.checked for row in rows]}), flush=True)


def main(run: str, out: Path, every: list[str]) -> None:
    for kinds in every:
        process = os.fork()
        if process == 0:
            measure(run, out / kinds, kinds.split())
            os._exit(0)
        if status := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
            raise SystemExit(f"{kinds}: exit status {status}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
