"""Edits of regions: what a person wants of single regions of a drawing, without retraining."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragaf_exp.core.errors import UserError

STRONGEST = 2.0  # largest importance and outline: beyond it colours oversaturate
STRENGTH, GROWTH = 0.7, 0.03  # defaults of RegionEdits


@dataclass(frozen=True)
class RegionEdit:
    """An edit of one region; the defaults change nothing.

    Raises:
        UserError: A value is out of range.
    """

    prompt: str = ""  # the only text that the region reads; "" = it reads the caption
    importance: float = 1.0  # of what the region reads: 0 = it reads nothing, 1 = as trained, at most 2
    outline: float = 1.0  # of the sketch there, 0 to 2
    locked: bool = False  # with RegionEdits.keep: its pixels stay
    start: float = 0.0  # share of the noise schedule, from pure noise, at which the region begins to read its text
    end: float = 1.0  # share at which it stops; 1 = the finished image

    def __post_init__(self) -> None:
        for name in ("importance", "outline"):
            if not 0 <= (value := getattr(self, name)) <= STRONGEST:
                raise UserError(f"edits: {name}={value}: must be between 0 and {STRONGEST:g}; 1 is as trained")
        if not 0 <= self.start < self.end <= 1:
            raise UserError(f"edits: start={self.start}, end={self.end}: must be increasing shares of the noise schedule, "
                            "between 0 and 1")  # fmt: skip


@dataclass(frozen=True)
class RegionEdits:
    """The edits of one drawing.

    Raises:
        UserError: A value is out of range, or `redo` names a region that does not exist.
    """

    regions: tuple[RegionEdit, ...]  # by region index; may be shorter than the number of regions
    keep: np.ndarray | None = None  # (H,W,3) uint8: an image, of which all but the regions `redo` stays
    redo: frozenset[int] = frozenset()  # with keep: regions that are sampled again
    strength: float = STRENGTH  # with keep: share of the noise schedule, in (0,1]
    grow: float = GROWTH  # with keep: share of the shorter side by which the area of `redo` grows

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise UserError(f"edits: strength={self.strength}: must be above 0 and at most 1")
        if not 0 <= self.grow <= 1:
            raise UserError(f"edits: grow={self.grow}: must be between 0 and 1; take {GROWTH}")
        if unknown := sorted(i for i in self.redo if not 0 <= i < len(self.regions)):
            raise UserError(f"edits: redo={unknown[0]}: must be a region from 0 to {len(self.regions) - 1}")

    def locked(self) -> list[int]:
        """List the regions whose pixels stay."""
        return [i for i, edit in enumerate(self.regions) if edit.locked]
