"""Limits of requests, as /api/about states them."""

from __future__ import annotations

from typing import Any

from ragaf_exp.data.uploads import MAX_SIDE
from ragaf_exp.inference.recipes.parse import MAX_CAPTION, MAX_PROMPT, MAX_REGIONS, RANGES
from ragaf_exp.studio.guard import MAX_BODY

REGIONS = MAX_REGIONS
TEXTS = MAX_REGIONS + 1  # whose unknown words are looked up at once


def described() -> dict[str, Any]:
    """Describe the limits for the page."""
    ranges = {key: list(bounds) for key, bounds in RANGES.items()}
    return {"regions": REGIONS, "prompt": MAX_PROMPT, "caption": MAX_CAPTION, "body": MAX_BODY, "side": MAX_SIDE, **ranges}
