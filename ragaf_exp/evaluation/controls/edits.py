"""Counterfactual captions and graphs: what a test item would ask for if one thing were different."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ragaf_exp.core.types import Example, Graph, Item
from ragaf_exp.data.sources.captions import RELATIONS, article, join_phrases
from ragaf_exp.data.sources.palette import OBJECT_NAMES

_WORDS = {direction: words for words, direction in RELATIONS.items()}
OPPOSITE = {words: _WORDS[axis, -sign] for words, (axis, sign) in RELATIONS.items()}


def with_colours(item: Item, colours: Sequence[str]) -> Item:
    """The item with these colours in its caption, in the order of its objects, and wanted of them. The image stays."""
    phrases = [_recoloured(p, o.colour, c) for p, o, c in zip(phrases_of(item), item.objects, colours, strict=True)]
    objects = [replace(thing, colour=colour) for thing, colour in zip(item.objects, colours, strict=True)]
    return _rebuilt(item, phrases, _links(item), objects)


def swapped(item: Item, rng: np.random.Generator) -> tuple[Item, tuple[int, int]] | None:
    """Two objects of different colours exchange their colour words; the item and which they are. None without such two."""
    colours = [thing.colour for thing in item.objects]
    pairs = [(i, j) for i in range(len(colours)) for j in range(i) if colours[i] != colours[j]]
    if not pairs:
        return None
    i, j = pairs[int(rng.integers(len(pairs)))]
    colours[i], colours[j] = colours[j], colours[i]
    return with_colours(item, colours), (i, j)


def one_word(item: Item, rng: np.random.Generator) -> tuple[Item, int]:
    """One object's colour word becomes another that the scene has not; the item and which object."""
    colours = [thing.colour for thing in item.objects]
    free = [name for name in OBJECT_NAMES if name not in colours]
    place = int(rng.integers(len(colours)))
    colours[place] = free[int(rng.integers(len(free)))]
    return with_colours(item, colours), place


def turned_round(item: Item) -> Item:
    """The phrases in reverse order and every relation turned round, so that the caption says the same."""
    links = [_opposite(link) for link in _links(item)]  # all alike where they are relations
    return _rebuilt(item, phrases_of(item)[::-1], links, item.objects[::-1])


def phrases_of(item: Item) -> list[str]:
    return [item.caption[slice(*thing.span)] for thing in item.objects]


def shuffled_graph(example: Example) -> Example:
    """The example with every edge between other regions than its own: regions are numbered one further."""
    places = np.roll(np.arange(example.regions.count), 1)
    graph, where = example.graph, np.ix_(places, places)
    return replace(example, graph=Graph(graph.nodes, graph.edges[where], graph.edge_mask[where]))


def _links(item: Item) -> list[str]:
    """What stands between neighbouring phrases, of which objects are in the caption's order."""
    spans = [thing.span for thing in item.objects]
    return [item.caption[a[1] : b[0]] for a, b in zip(spans, spans[1:], strict=False)]


def _opposite(link: str) -> str:
    words = link.strip()
    return link.replace(words, OPPOSITE[words]) if words in OPPOSITE else link


def _rebuilt(item: Item, phrases: Sequence[str], links: Sequence[str], objects: Sequence) -> Item:
    """The item with another caption. objects: in the caption's new order; they come back in the item's own."""
    before, after = item.caption[: item.objects[0].span[0]], item.caption[item.objects[-1].span[1] :]
    caption, spans = join_phrases(phrases, links, before, after)
    found = {thing.label: replace(thing, span=span) for thing, span in zip(objects, spans, strict=True)}
    return replace(item, caption=caption, objects=tuple(found[thing.label] for thing in item.objects))


def _recoloured(phrase: str, colour: str, new: str) -> str:
    """ValueError where the phrase does not hold its colour."""
    words, times = re.subn(rf"\b{colour}\b", new, phrase, count=1)
    if not times:
        raise ValueError(f"{phrase!r} does not hold {colour}")
    bare = re.sub(r"^an? ", "", words)
    return words if bare == words else article(bare)
