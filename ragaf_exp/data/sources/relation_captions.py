"""Captions of scenes in which all objects have one shape, so that only their relations distinguish them.

Each sentence describes every object once and determines the colour of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ragaf_exp.data.sources.captions import article, join_phrases

ORDINALS = ("first", "second", "third", "fourth", "fifth")
SIDES = {"left of": "the left", "right of": "the right", "above": "the top", "below": "the bottom"}

Caption = tuple[str, list[tuple[int, int]], list[int]]  # text, spans of the phrases, index of each phrase's object


def chain(rng: np.random.Generator, shape: str, colours: Sequence[str], relation: str) -> Caption:
    """Describe objects in order: 'a red star left of a blue star left of a green star'.

    Args:
        rng: Random generator.
        shape: The noun.
        colours: Of the objects, in the order of the relation.
        relation: A key of RELATIONS.
    """
    text, spans = join_phrases([_a(colour, shape) for colour in colours], [f" {relation} "] * (len(colours) - 1))
    return text, spans, list(range(len(colours)))


def between(rng: np.random.Generator, shape: str, colours: Sequence[str], relation: str) -> Caption:
    """Describe three objects from the middle: 'a red star between a blue star on the left and ...'.

    Args:
        rng: Random generator.
        shape: The noun.
        colours: Of the objects, in the order of the relation.
        relation: A key of RELATIONS.
    """
    first, middle, last = (_a(colour, shape) for colour in colours)
    sides = {"left of": ("on the left", "on the right"), "right of": ("on the right", "on the left"),
             "above": ("at the top", "at the bottom"), "below": ("at the bottom", "at the top")}[relation]  # fmt: skip
    phrases = [middle, f"{first} {sides[0]}", f"{last} {sides[1]}"]
    text, spans = join_phrases(phrases, [" between ", " and "])
    return text, spans, [1, 0, 2]


def ordinal(rng: np.random.Generator, shape: str, colours: Sequence[str], relation: str) -> Caption:
    """Describe objects by their rank, in random order: 'the second star from the left is red, the first ... is blue'.

    Args:
        rng: Random generator.
        shape: The noun.
        colours: Of the objects, in the order of the relation.
        relation: A key of RELATIONS.
    """
    order = rng.permutation(len(colours)).tolist()
    phrases = [f"the {ORDINALS[i]} {shape} from {SIDES[relation]} is {colours[i]}" for i in order]
    text, spans = _listed(phrases)
    return text, spans, order


def nested(rng: np.random.Generator, shape: str, colours: Sequence[str], relation: str) -> Caption:
    """Describe objects from the innermost: 'a red star inside a blue star inside a green star'.

    Args:
        rng: Random generator.
        shape: The noun.
        colours: Of the objects, in the order of the relation.
        relation: A key of RELATIONS.
    """
    text, spans = join_phrases([_a(colour, shape) for colour in colours], [" inside "] * (len(colours) - 1))
    return text, spans, list(range(len(colours)))


def sizes(rng: np.random.Generator, shape: str, colours: Sequence[str], relation: str) -> Caption:
    """Describe two or three objects, given in ascending order of size: 'the largest star is red, the smallest is ...'.

    Args:
        rng: Random generator.
        shape: The noun.
        colours: Of the objects, in the order of the relation.
        relation: A key of RELATIONS.
    """
    two = len(colours) == 2
    names = ("smaller", "larger") if two else ("smallest", "medium", "largest")
    order = rng.permutation(len(colours)).tolist()
    text, spans = _listed([f"the {names[i]} {shape} is {colours[i]}" for i in order])
    return text, spans, order


FORMS: dict[str, Callable[[np.random.Generator, str, Sequence[str], str], Caption]] = {
    "chain": chain, "between": between, "ordinal": ordinal, "inside": nested, "size": sizes,
}  # fmt: skip


def relation_of(form: str, relation: str) -> str:
    """Name the relation of a scene in reports, as 'above' for a chain along y and 'ordinal' for ranks."""
    return relation if form == "chain" else form


def on_background(caption: Caption, background: str) -> Caption:
    """Add the background to a caption."""
    text, spans, order = caption
    return f"{text} on {article(background)} background", spans, order


def _a(colour: str, shape: str) -> str:
    return article(f"{colour} {shape}")


def _listed(phrases: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    return join_phrases(phrases, [", "] * (len(phrases) - 2) + [" and "])
