"""Captions of figures with parts, as users type them: synonyms, single words, capitals, no background.

A caption without a background means white paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragaf_exp.data.sources.captions import article, join_phrases

SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet", "ruby"),
    "orange": ("amber", "tangerine"),
    "yellow": ("golden", "lemon", "gold"),
    "green": ("emerald", "dark green", "grass green"),
    "cyan": ("turquoise", "teal", "aqua", "light blue"),
    "blue": ("navy", "dark blue", "royal blue"),
    "purple": ("violet", "plum"),
    "pink": ("rose", "magenta", "light pink"),
    "black": ("jet black", "ebony"),
    "white": ("snow white", "ivory"),
    "brown": ("chocolate", "chestnut"),
}
SYNONYM_SHARE = 0.25
SHORT_SHARE = 0.35  # of scenes with a single colour
UNNAMED_GROUND_SHARE = 0.75  # of scenes on white
CAPITALS_SHARE = 0.05
SHORT = ("{}", "make it {}", "a {} one", "colour it {}", "all {}", "paint it {}")

Span = tuple[int, int]


@dataclass(frozen=True)
class Painted:
    """Something with a colour, as a caption names it."""

    noun: str  # a figure or a part; "" is not named
    colour: str  # a key of SYNONYMS
    fill: str = "plain"


@dataclass(frozen=True)
class Phrase:
    """A noun phrase, with the span of each thing that it names."""

    text: str
    spans: tuple[Span, ...]

    def shifted(self, by: int) -> tuple[Span, ...]:
        """Return the spans in a text in which the phrase starts at `by`."""
        return tuple((first + by, last + by) for first, last in self.spans)


def colour_word(rng: np.random.Generator, colour: str) -> str:
    """Name a colour, at times by a synonym."""
    return str(rng.choice(SYNONYMS[colour])) if rng.random() < SYNONYM_SHARE else colour


def figure_phrase(rng: np.random.Generator, body: Painted, parts: Sequence[Painted]) -> Phrase:
    """Name a figure and some of its parts, as 'a red house with a white door and yellow wheels'.

    Args:
        rng: Random generator, for synonyms.
        body: The figure; without a colour if all of its parts are named.
        parts: Parts of another colour.

    Returns:
        The phrase, whose spans are the body's and each part's; the body's is (0, 0) without a colour.
    """
    words = [body.fill if body.fill != "plain" else "", colour_word(rng, body.colour) if body.colour else "", body.noun]
    text = article(" ".join(word for word in words if word))
    spans = [(0, len(text)) if body.colour else (0, 0)]
    for number, part in enumerate(parts):
        text += " with " if number == 0 else " and " if number == len(parts) - 1 else ", "
        phrase = _part(colour_word(rng, part.colour), part.noun)
        spans.append((len(text), len(text) + len(phrase)))
        text += phrase
    return Phrase(text, tuple(spans))


def _part(colour: str, noun: str) -> str:
    """Name a part; plural ones have no article."""
    plain = f"{colour} {noun}"
    return plain if noun.endswith("s") else article(plain)


def scene_caption(
    rng: np.random.Generator, phrases: Sequence[Phrase], relation: str, background: str
) -> tuple[str, list[tuple[Span, ...]]]:
    """Join the figures of a scene.

    Args:
        rng: Random generator, for the form.
        phrases: Of the figures, in the order of the relation.
        relation: A key of RELATIONS, or "" for a list.
        background: Its name; white is often left out.

    Returns:
        The caption, and the spans of each figure.
    """
    links = [f" {relation} "] * (len(phrases) - 1) if relation else [", "] * (len(phrases) - 2) + [" and "]
    before, after = _ground(rng, background)
    text, wholes = join_phrases([phrase.text for phrase in phrases], links, before, after)
    spans = [phrase.shifted(first) for phrase, (first, _) in zip(phrases, wholes, strict=True)]
    return (text.upper() if rng.random() < CAPITALS_SHARE else text), spans


def _ground(rng: np.random.Generator, background: str) -> tuple[str, str]:
    """Choose the texts before and after the figures."""
    if background == "white" and rng.random() < UNNAMED_GROUND_SHARE:
        return "", ""
    ground = article(background)
    frames = (("", f" on {ground} background"), (f"on {ground} background, ", ""), (f"{ground} background with ", ""))
    return frames[int(rng.integers(len(frames)))]


def short_caption(rng: np.random.Generator, colour: str) -> tuple[str, list[tuple[Span, ...]]]:
    """Ask for one colour in a few words, as 'make it red', with the span of the one figure."""
    text = str(rng.choice(SHORT)).format(colour_word(rng, colour))
    return (text.upper() if rng.random() < CAPITALS_SHARE else text), [((0, len(text)),)]
