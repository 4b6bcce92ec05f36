"""Events of a job, and their form as server-sent events."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ragaf_exp.data.uploads import data_url

LAST = ("done", "error", "stopped")  # kinds of events after which a stream ends
Report: TypeAlias = Callable[..., None]  # (kind, **data), adds an event to a job


@dataclass(frozen=True)
class Picture:
    """A picture in an event's data; it becomes a data URL when it is sent, so that a waiting event stays small."""

    content: bytes  # a PNG


@dataclass(frozen=True)
class Event:
    """One event."""

    kind: str
    data: dict[str, Any]

    @property
    def ends(self) -> bool:
        """Whether no event follows."""
        return self.kind in LAST

    def size(self) -> int:
        """Estimate the bytes that it takes."""
        return sum(map(_size, self.data.values()))

    def encoded(self, number: int) -> bytes:
        """Encode for a stream; `number` is its id."""
        data = json.dumps(self.data, default=_encoded, allow_nan=False)
        return f"id: {number}\nevent: {self.kind}\ndata: {data}\n\n".encode()


def _encoded(value: Any) -> str:
    if isinstance(value, Picture):
        return data_url(value.content)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _size(value: Any) -> int:
    if isinstance(value, Picture):
        return len(value.content)
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 8
