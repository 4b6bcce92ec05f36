"""A copy of this checkout with a stub for training: what a member does depends on its seed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STUBBED = Path("ragaf_exp/experiments/experiment.py")
EXPERIMENT = """
import json, os, sys, time
from pathlib import Path
from types import SimpleNamespace
from ragaf_exp.config.compose import config_hash
WORD = "original"
def run(cfg):
    path = Path(cfg.runs) / cfg.name / config_hash(cfg)
    path.mkdir(parents=True, exist_ok=True)
    def status(state, **facts):
        (path / "status.json").write_text(json.dumps({"schema": 1, "state": state, "updated": time.time(), **facts}))
    status("running", stage="coarse", step=3, steps=9, rate=2.0)
    with open(path / "attempts", "a") as file:
        file.write(f"{WORD} {cfg.optim.warmup} {os.environ['OMP_NUM_THREADS']}\\n")
    if cfg.seed == 1:
        status("failed", error="the loss is nan")
        raise SystemExit(1)
    if cfg.seed == 2:
        os._exit(7)
    time.sleep(60 if cfg.seed == 3 else 0)
    value = 1 - abs(cfg.stage.refine.recolour - 0.5)
    figures = {"binding_accuracy": {"value": value, "n": 9, "ci95": [value - 0.1, value + 0.1], "higher_is_better": True}}
    (path / "metrics.json").write_text(json.dumps({"schema": 1, "metrics": figures}))
    status("done", step=9, steps=9)
    return SimpleNamespace(is_main=False)
"""


def make_checkout(path: Path) -> Path:
    """Copy code, conf and sweeps, and replace the experiment by a stub."""
    for part in ("ragaf_exp", "eval", "conf", "sweeps"):
        shutil.copytree(ROOT / part, path / part, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    stub = path / STUBBED
    assert stub.exists(), f"{STUBBED} has moved; a stub elsewhere would leave the real training in place"
    stub.write_text(EXPERIMENT)
    return path


def call(checkout: Path, module: str, *words: object) -> subprocess.CompletedProcess:
    """`python -m module words` in the checkout."""
    command = [sys.executable, "-m", module, *map(str, words)]
    wide = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=200, env=wide)


def sweep(checkout: Path, *words: object) -> subprocess.CompletedProcess:
    return call(checkout, "ragaf_exp.sweep", *words)
