"""Random weights of the neural extractors, in files as the hub has them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ragaf_exp.sketch.hed import HED
from ragaf_exp.sketch.lineart import LineArt
from ragaf_exp.sketch.loading import library
from ragaf_exp.sketch.neural import Neural
from ragaf_exp.sketch.pidinet import PiDiNet
from ragaf_exp.sketch.teed import TEED

NEURAL: dict[str, type[Neural]] = {"hed": HED, "lineart": LineArt, "pidinet": PiDiNet, "teed": TEED}


def save_random(name: str, folder: Path, seed: int = 0) -> Path:
    """The file of an extractor's weights, in a folder; skips where controlnet_aux is not installed."""
    pytest.importorskip("controlnet_aux", reason="controlnet_aux is not installed: pip install 'ragaf_exp[extractors]'")
    path = folder / NEURAL[name].FILE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = network(name).state_dict()
    if name == "pidinet":
        state = {"epoch": 1, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(state, path)
    return path


def network(name: str) -> torch.nn.Module:
    if name == "hed":
        return library("hed").ControlNetHED_Apache2()
    if name == "lineart":
        return library("lineart").Generator(3, 1, 3)
    return library("teed.ted").TED() if name == "teed" else library("pidi.model").pidinet()
