"""The environment of a run: versions, commit and device."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "hydra-core", "numpy", "opencv-python-headless")


def environment() -> dict[str, Any]:
    """Collect versions, commit and device, so that a run's results can be traced to them."""
    import torch  # slow to import, and not needed to read a folder

    versions = {name: _version(name) for name in PACKAGES}
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "ragaf_exp": _version("ragaf_exp"), "commit": _commit(), "python": platform.python_version(),
        "platform": platform.platform(), "device": device, "cores": os.cpu_count(), "packages": versions,
        "command": [argument.removeprefix("++") for argument in sys.argv],
    }  # fmt: skip


@lru_cache  # the look-up scans all installed packages
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the checkout that this code runs from, with + if it was modified; None outside a checkout."""
    recorded = Path(__file__).parents[2] / ".commit"  # a sweep's snapshot records its commit there
    if recorded.exists():
        return recorded.read_text() or None
    git = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")
