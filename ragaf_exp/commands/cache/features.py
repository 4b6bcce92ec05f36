"""Fills the cache of encoder outputs (latents and text features) before training.

    python -m ragaf_exp.commands.cache.features [overrides as of ragaf_exp.run]

Existing entries are not recomputed, so that an interrupted pass can be resumed. Several processes, e.g. of torchrun or
accelerate launch, may fill the same folder. Example:

    python -m ragaf_exp.commands.cache.features memory=16gb data=folder data.root=photos
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ragaf_exp.config.command_line import guarded
from ragaf_exp.config.compose import compose_config


def main() -> None:
    from ragaf_exp.assembly.assemble import assemble
    from ragaf_exp.compute.device import Compute
    from ragaf_exp.distributed import launch
    from ragaf_exp.runs.folder import RunFolder
    from ragaf_exp.training.encoder_cache.fill import prepare

    overrides = sys.argv[1:]
    default = [] if any(override.startswith("memory.features=") for override in overrides) else ["memory.features=all"]
    cfg = compose_config([*overrides, *default])
    launch.init_process_group(Path(cfg.runs).absolute(), cfg.memory.device)
    device = Compute(cfg.memory.device, cfg.memory.precision).device
    with tempfile.TemporaryDirectory() as folder:
        features = prepare(cfg, assemble(cfg, RunFolder(Path(folder))), device)
    launch.destroy_process_group()
    for kind in (features.latents, features.texts) if features and launch.is_main_process() else ():
        if kind is not None:
            for records in kind.every():
                print(f"{records.folder}: {len(records):,} records of {records.dtype.itemsize:,} bytes")


if __name__ == "__main__":
    guarded(main)
