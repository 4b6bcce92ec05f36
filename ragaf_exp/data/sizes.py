"""Sizes of images: as a command line gives them, and the multiples of pixels that networks take."""

from __future__ import annotations

import re

from ragaf_exp.core.errors import UserError

LEAST, MOST = 16, 2048  # px of a side


def parse_size(text: str, key: str = "size") -> tuple[int, int]:
    """Parse WIDTHxHEIGHT, or one number for a square, to a height and width in pixels.

    Args:
        text: As 768x512 or 512.
        key: The argument's name, for messages.

    Returns:
        The height and the width.

    Raises:
        UserError: The text is no size, or a side is not within LEAST to MOST.
    """
    match = re.fullmatch(r"(\d{1,5})(?:[x*](\d{1,5}))?", text.strip().lower())
    if match is None:
        raise UserError(f"{key}={text}: give WIDTHxHEIGHT in pixels, as 768x512, or one number for a square")
    width, height = int(match[1]), int(match[2] or match[1])
    if not all(LEAST <= side <= MOST for side in (width, height)):
        raise UserError(f"{key}={text}: sides must be {LEAST} to {MOST} pixels; take "
                        f"{size_text(*(min(max(side, LEAST), MOST) for side in (height, width)))}")  # fmt: skip
    return height, width


def check_multiple(height: int, width: int, unit: int, key: str = "size") -> None:
    """Raise UserError, with the nearest valid size, unless both sides are multiples of `unit` pixels.

    Args:
        height: In pixels.
        width: Likewise.
        unit: Pixels per latent pixel of the codec, times the stride of the backbone.
        key: The argument's name, for the message.
    """
    if height % unit or width % unit:
        nearest = size_text(*(max(unit, (side + unit // 2) // unit * unit) for side in (height, width)))
        raise UserError(f"{key}={size_text(height, width)}: sides must be multiples of {unit} pixels for this backbone and "
                        f"codec; the nearest is {nearest}")  # fmt: skip


def size_text(height: int, width: int) -> str:
    """Format a size as `parse_size` takes it."""
    return str(height) if height == width else f"{width}x{height}"
