"""A sampling request: sketch, prompt and sampler settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """One image to make."""

    sketch: Path
    prompt: str
    out: Path
