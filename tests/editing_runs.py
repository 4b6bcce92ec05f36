"""Configs of the tiny editing transformers in tiny_editing.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from family_runs import CAPTIONS, built, overrides
from tiny_editing import EDITING

from ragaf_exp.config.compose import compose_config

SIZE = 64
EDITORS = list(EDITING)
__all__ = ["CAPTIONS", "EDITORS", "SIZE", "built", "config", "edits", "save_all"]


def edits(tiny: list[str], family: str, folder: Path, runs: Path, *more: str) -> list[str]:
    """The tiny run with a family's folder, at 64x64; the templates of Qwen-Image-Edit are spelled letter by letter."""
    tokens = ["text.max_tokens=80"] if family.startswith("qwen") else []
    return overrides(tiny, family, folder, runs, f"data.size={SIZE}", *tokens, *more)


def config(tiny: list[str], family: str, folder: Path, runs: Path, *more: str) -> Any:
    """The checked config of `edits`."""
    return compose_config(edits(tiny, family, folder, runs, *more))


def save_all(root: Path) -> dict[str, Path]:
    """The folder of each family."""
    return {family: save(root / family) for family, save in EDITING.items()}
