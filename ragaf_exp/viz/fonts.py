"""Fonts for any text: Matplotlib's own, else an installed one, else placeholders for missing letters."""

from __future__ import annotations

import unicodedata
from functools import cache

import matplotlib

DEFAULT = "fonts/ttf/DejaVuSans.ttf"  # part of Matplotlib, so that images look the same on every machine
MISSING = "□"  # for a letter that no font has; a question mark if the font lacks this, too
COLOURED = ("color", "emoji", "lastresort")  # in the names of fonts without outlines or with placeholder glyphs


def lettering(text: str) -> tuple[str, str]:
    """Select a font for a text.

    Returns the path of the font, and the text with a placeholder for each letter that it lacks. White space other than line
    ends becomes a space; invisible characters are dropped.
    """
    text = "".join(map(_visible, text))
    path, letters = default_font(), frozenset(text) - {"\n"}
    if letters <= _letters(path):
        return path, text
    path = _best(letters) or path
    known = _letters(path) | {"\n"}
    placeholder = MISSING if MISSING in known else "?"
    return path, "".join(letter if letter in known else placeholder for letter in text)


def default_font() -> str:
    """Path of Matplotlib's own font, which is preferred."""
    return f"{matplotlib.get_data_path()}/{DEFAULT}"


def _visible(letter: str) -> str:
    if letter.isspace():
        return "\n" if letter == "\n" else " "
    selects_a_variant = "\ufe00" <= letter <= "\ufe0f"
    return "" if selects_a_variant or unicodedata.category(letter) in ("Cc", "Cf", "Cs") else letter


@cache
def _letters(path: str) -> frozenset[str]:
    """The letters in a font file; none if it cannot be scaled or read."""
    from matplotlib.ft2font import FT2Font  # only where there is text to draw

    try:
        font = FT2Font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@cache
def _best(letters: frozenset[str]) -> str:
    """The installed font with the most of these letters, "" if none has more than the default font."""
    from matplotlib.font_manager import fontManager  # slow to import, and rarely needed

    paths = sorted({font.fname for font in fontManager.ttflist})
    usable = [path for path in paths if not any(name in path.lower() for name in COLOURED)]
    best = max(usable, key=lambda path: len(letters & _letters(path)), default="")
    more = len(letters & _letters(best)) - len(letters & _letters(default_font())) if best else 0
    return best if more > 0 else ""
