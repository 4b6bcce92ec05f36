"""Exports of tiny runs, made once per session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exporting import train, write
from tiny_sd import save_sd


@pytest.fixture(scope="session")
def exported(finished, tmp_path_factory) -> Path:
    """The export of the tiny run on the embedded data."""
    return write(finished, tmp_path_factory.mktemp("exports") / "tiny")


@pytest.fixture(scope="session")
def sd(tmp_path_factory) -> Path:
    """A small folder in Stable Diffusion's layout."""
    return save_sd(tmp_path_factory.mktemp("sd") / "sd")


@pytest.fixture(scope="session")
def lora_run(tiny, sd, tmp_path_factory) -> Path:
    """A run with a ControlNet and LoRA."""
    return train(tiny, sd, tmp_path_factory.mktemp("runs"), "lora", "controlnet")


@pytest.fixture(scope="session")
def full_run(tiny, sd, tmp_path_factory) -> Path:
    """A run with a ControlNet that trained the whole UNet."""
    return train(tiny, sd, tmp_path_factory.mktemp("runs"), "full", "controlnet")


@pytest.fixture(scope="session")
def lora_export(lora_run, tmp_path_factory) -> Path:
    """Its export with all weights."""
    return write(lora_run, tmp_path_factory.mktemp("exports") / "lora", copies=True)


@pytest.fixture(scope="session")
def full_export(full_run, tmp_path_factory) -> Path:
    """Its export; unchanged weights are named."""
    return write(full_run, tmp_path_factory.mktemp("exports") / "full")


@pytest.fixture(scope="session")
def strokes() -> np.ndarray:
    """(32,32) in [0,1]: a square, 1 = stroke."""
    drawing = np.zeros((32, 32), np.float32)
    drawing[6:26, [6, 25]] = drawing[[6, 25], 6:26] = 1
    return drawing
