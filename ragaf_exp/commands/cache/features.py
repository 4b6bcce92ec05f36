"""Computes the features of a config's training data: python -m ragaf_exp.training.encoder_cache [overrides as ragaf_exp.run's]

What is there already is not computed again; an interrupted pass goes on where it was. Several processes, also of
torchrun or accelerate launch, may work on one folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ragaf_exp.config.command_line import guarded
from ragaf_exp.config.compose import composed


def main() -> None:
    from ragaf_exp.assembly.assemble import assemble
    from ragaf_exp.compute.device import Compute
    from ragaf_exp.distributed import launch
    from ragaf_exp.runs.folder import RunFolder
    from ragaf_exp.training.encoder_cache.fill import prepare

    words = sys.argv[1:]
    asked = [] if any(word.startswith("memory.features=") for word in words) else ["memory.features=all"]
    cfg = composed([*words, *asked])
    launch.wire(Path(cfg.runs).absolute(), cfg.memory.device)
    device = Compute(cfg.memory.device, cfg.memory.precision).device
    with tempfile.TemporaryDirectory() as folder:
        found = prepare(cfg, assemble(cfg, RunFolder(Path(folder))), device)
    launch.leave()
    for kind in (found.latents, found.texts) if found and launch.leads() else ():
        if kind is not None:
            print(f"{kind.records.folder}: {len(kind.records):,} records of {kind.records.dtype.itemsize:,} bytes")


if __name__ == "__main__":
    guarded(main)
