"""A font for any text: the one that Matplotlib brings along, else an installed one, else placeholders."""

from __future__ import annotations

import unicodedata
from functools import cache

import matplotlib

DEFAULT = "fonts/ttf/DejaVuSans.ttf"  # part of Matplotlib, so that pictures look the same on every machine
MISSING = "□"  # for a letter that no font has; where the font lacks it too, a question mark
COLOURED = ("color", "emoji", "lastresort")  # in the names of fonts without outlines, or of boxes for every letter


def lettering(text: str) -> tuple[str, str]:
    """The path of a font for the text, and the text with a placeholder for each letter that this font lacks.

    Tabs and other white space but line ends become spaces; invisible characters are left out.
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
    """Path of the font for all text that it has the letters of."""
    return f"{matplotlib.get_data_path()}/{DEFAULT}"


def _visible(letter: str) -> str:
    if letter.isspace():
        return "\n" if letter == "\n" else " "
    selects_a_variant = "\ufe00" <= letter <= "\ufe0f"
    return "" if selects_a_variant or unicodedata.category(letter) in ("Cc", "Cf", "Cs") else letter


@cache
def _letters(path: str) -> frozenset[str]:
    """The letters that a font file has; none where it can't be scaled or read."""
    from matplotlib.ft2font import FT2Font  # only where there is text to draw

    try:
        font = FT2Font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@cache
def _best(letters: frozenset[str]) -> str:
    """The installed font with most of these letters, "" where none has more than the default one."""
    from matplotlib.font_manager import fontManager  # slow to import, and few texts need it

    paths = sorted({font.fname for font in fontManager.ttflist})
    usable = [path for path in paths if not any(name in path.lower() for name in COLOURED)]
    best = max(usable, key=lambda path: len(letters & _letters(path)), default="")
    more = len(letters & _letters(best)) - len(letters & _letters(default_font())) if best else 0
    return best if more > 0 else ""
