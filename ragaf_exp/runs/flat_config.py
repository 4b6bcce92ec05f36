"""Fast reading of a run's config.yaml as text by full keys, unchecked, to compare runs."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ragaf_exp.config.added import ADDED
from ragaf_exp.config.compose import OUTPUT_KEYS
from ragaf_exp.core.printable import printable

HASH = re.compile(r"[0-9a-f]{12}")  # a run folder's name
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def flat_config(path: Path) -> dict[str, str]:
    """Read the config as full key -> text; {} if it is missing or damaged.

    Runs of a sweep share most top-level blocks of their configs, so each distinct block is parsed once.
    """
    try:
        blocks = re.split(r"\n(?=\S)", path.read_text())
    except (OSError, UnicodeDecodeError):
        return {}
    flat: dict[str, str] = {}
    for block in blocks:
        flat.update(_block(block))
    if flat:  # settings that its version did not have, at the values that stand for what it did
        flat = {**dict(_flat(ADDED)), **flat}
    return {printable(key): printable(value) for key, value in flat.items()
            if key.partition(".")[0] not in (*OUTPUT_KEYS, "name")}  # fmt: skip


@lru_cache(maxsize=4096)
def _block(text: str) -> dict[str, str]:
    try:
        content = yaml.load(text, Loader=LOADER)  # noqa: S506 - a safe loader: plain values only
    except yaml.YAMLError:
        return {}
    return dict(_flat(content)) if isinstance(content, dict) else {}


def _flat(content: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in content.items():
        full = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            pairs += _flat(value, f"{full}.")
        else:
            text = str(value)
            pairs.append((full.removesuffix("._target_"), text.rpartition(".")[2] if key == "_target_" else text))
    return pairs
