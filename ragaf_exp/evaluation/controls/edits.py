"""Counterfactual captions and graphs: a test item with one of its conditions changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ragaf_exp.core.types import Example, Graph, Item
from ragaf_exp.data.sources.captions import RELATIONS, article, join_phrases
from ragaf_exp.data.sources.figure_captions import SYNONYMS
from ragaf_exp.data.sources.palette import OBJECT_NAMES

_WORDS = {direction: words for words, direction in RELATIONS.items()}
OPPOSITE = {words: _WORDS[axis, -sign] for words, (axis, sign) in RELATIONS.items()}


def with_colours(item: Item, colours: Sequence[str]) -> Item:
    """The item with these colours in its caption and objects, in the order of the objects. The image is unchanged."""
    phrases = [_recoloured(p, o.colour, c) for p, o, c in zip(phrases_of(item), item.objects, colours, strict=True)]
    objects = [replace(thing, colour=colour) for thing, colour in zip(item.objects, colours, strict=True)]
    return _rebuilt(item, phrases, _links(item), objects)


def swapped(item: Item, rng: np.random.Generator) -> tuple[Item, tuple[int, int]] | None:
    """Exchange the colour words of two objects; the item and their indices, None if all colours are equal."""
    colours = [thing.colour for thing in item.objects]
    pairs = [(i, j) for i in range(len(colours)) for j in range(i) if colours[i] != colours[j]]
    if not pairs:
        return None
    i, j = pairs[int(rng.integers(len(pairs)))]
    colours[i], colours[j] = colours[j], colours[i]
    return with_colours(item, colours), (i, j)


def one_word(item: Item, rng: np.random.Generator) -> tuple[Item, int]:
    """Replace one object's colour word by a colour that is not in the scene; the item and the object's index."""
    colours = [thing.colour for thing in item.objects]
    free = [name for name in OBJECT_NAMES if name not in colours]
    index = int(rng.integers(len(colours)))
    colours[index] = free[int(rng.integers(len(free)))]
    return with_colours(item, colours), index


def turned_round(item: Item) -> Item:
    """Reverse the order of the phrases and every relation, so that the caption's meaning stays the same."""
    links = [_opposite(link) for link in _links(item)]  # all the same if they are relations
    return _rebuilt(item, phrases_of(item)[::-1], links, item.objects[::-1])


def phrases_of(item: Item) -> list[str]:
    """The phrase of each object, cut from the caption."""
    return [item.caption[slice(*thing.span)] for thing in item.objects]


def shuffled_graph(example: Example) -> Example:
    """The example with its edges permuted: region i gets the edges of region i - 1."""
    order = np.roll(np.arange(example.regions.count), 1)
    graph, where = example.graph, np.ix_(order, order)
    return replace(example, graph=Graph(graph.nodes, graph.edges[where], graph.edge_mask[where]))


def _links(item: Item) -> list[str]:
    """The text between neighbouring phrases. Objects are in the caption's order."""
    spans = [thing.span for thing in item.objects]
    return [item.caption[a[1] : b[0]] for a, b in zip(spans, spans[1:], strict=False)]


def _opposite(link: str) -> str:
    words = link.strip()
    return link.replace(words, OPPOSITE[words]) if words in OPPOSITE else link


def _rebuilt(item: Item, phrases: Sequence[str], links: Sequence[str], objects: Sequence) -> Item:
    """The item with another caption, given objects in the new caption's order; the result keeps the item's order."""
    before, after = item.caption[: item.objects[0].span[0]], item.caption[item.objects[-1].span[1] :]
    caption, spans = join_phrases(phrases, links, before, after)
    by_label = {thing.label: replace(thing, span=span) for thing, span in zip(objects, spans, strict=True)}
    return replace(item, caption=caption, objects=tuple(by_label[thing.label] for thing in item.objects))


def _recoloured(phrase: str, colour: str, new: str) -> str:
    """Replace the colour, or a synonym, in a phrase and correct its article. Raises ValueError if the phrase lacks it."""
    named = "|".join(sorted((colour, *SYNONYMS.get(colour, ())), key=len, reverse=True))  # "dark blue" before "blue"
    words, times = re.subn(rf"\b({named})\b", new, phrase, count=1, flags=re.IGNORECASE)
    if not times:
        raise ValueError(f"{phrase!r} does not hold {colour}")
    bare = re.sub(r"^an? ", "", words, flags=re.IGNORECASE)
    return words if bare == words else article(bare)
