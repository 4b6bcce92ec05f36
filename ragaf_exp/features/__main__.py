"""Computes the features of a config's training data: python -m ragaf_exp.features [overrides as ragaf_exp.run's]

What is there already is not computed again; an interrupted pass goes on where it was. Several processes, also of
torchrun or accelerate launch, may work on one folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ragaf_exp.cli import guarded
from ragaf_exp.config.compose import composed


def main() -> None:
    from ragaf_exp.assemble import assemble
    from ragaf_exp.features.fill import prepare
    from ragaf_exp.jobs import processes
    from ragaf_exp.runfolder import RunFolder
    from ragaf_exp.training.precision import Compute

    words = sys.argv[1:]
    asked = [] if any(word.startswith("memory.features=") for word in words) else ["memory.features=all"]
    cfg = composed([*words, *asked])
    processes.wire(Path(cfg.runs).absolute(), cfg.memory.device)
    device = Compute(cfg.memory.device, cfg.memory.precision).device
    with tempfile.TemporaryDirectory() as folder:
        found = prepare(cfg, assemble(cfg, RunFolder(Path(folder))), device)
    processes.leave()
    for kind in (found.latents, found.texts) if found and processes.leads() else ():
        if kind is not None:
            print(f"{kind.records.folder}: {len(kind.records):,} records of {kind.records.dtype.itemsize:,} bytes")


if __name__ == "__main__":
    guarded(main)
