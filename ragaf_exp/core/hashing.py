"""Digests of plain values, which name run folders and cache entries."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def json_digest(content: Any, digits: int = 16) -> str:
    """The first hex digits of the SHA-256 of JSON-like content; the order of a mapping's keys does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:digits]
