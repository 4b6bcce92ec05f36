"""A sampling request: sketch, prompt and output folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """One image to sample. out: the folder of its files. edits: of regions. keep: an image of which the rest stays."""

    sketch: Path
    prompt: str
    out: Path
    edits: Path | None = None
    keep: Path | None = None
