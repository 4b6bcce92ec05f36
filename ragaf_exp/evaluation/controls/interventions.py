"""The controls by name: the change of a test item's conditions or of the sampler, and the colours wanted after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.assign import with_prompts
from ragaf_exp.data.sources.captions import article
from ragaf_exp.evaluation.controls import edits


@dataclass(frozen=True)
class Changed:
    """An example under a control."""

    example: Example  # the model's conditions
    judged: Item  # its objects have the colours that are wanted now
    touched: tuple[int, ...] = ()  # indices of the objects that should look different from before


@dataclass(frozen=True)
class Control:
    """One change. `change`: (example, previous example, generator) -> Changed, or None if it does not apply."""

    what: str
    change: Callable[[Example, Example, np.random.Generator], Changed | None]
    regions: bool = False  # only affects models with a region path
    steps: float = 1.0  # share of the sampler's steps in each stage


def _right(example: Example, before: Example, rng: np.random.Generator) -> Changed:
    return Changed(example, example.item)


def _captions_shuffled(example: Example, before: Example, rng: np.random.Generator) -> Changed:
    return Changed(replace(example, item=replace(example.item, caption=before.item.caption)), example.item)


def _graphs_shuffled(example: Example, before: Example, rng: np.random.Generator) -> Changed:
    return Changed(edits.shuffled_graph(example), example.item)


def _phrases_permuted(example: Example, before: Example, rng: np.random.Generator) -> Changed:
    item = edits.turned_round(example.item)
    return Changed(replace(example, item=item), item)


def _colours_swapped(example: Example, before: Example, rng: np.random.Generator) -> Changed | None:
    swapped = edits.swapped(example.item, rng)
    return swapped and Changed(replace(example, item=swapped[0]), *swapped)


def _one_word(example: Example, before: Example, rng: np.random.Generator) -> Changed:
    item, index = edits.one_word(example.item, rng)
    return Changed(replace(example, item=item), item, (index,))


def _region_prompt(example: Example, before: Example, rng: np.random.Generator) -> Changed | None:
    """Another colour as the prompt of one object's regions, against the caption, which stays as it is.

    With the article that opens every phrase of a caption: a network may not know each colour as a bare word.
    """
    item, place = edits.one_word(example.item, rng)
    colour = item.objects[place].colour
    prompted = with_prompts(example, [place], lambda i, thing: article(colour))
    if prompted.edits is None:
        return None
    return Changed(prompted, replace(example.item, objects=item.objects), (place,))


CONTROLS = {
    "right": Control("caption and graph as they are", _right),
    "captions_shuffled": Control("another item's caption: binding must fall to chance", _captions_shuffled),
    "graphs_shuffled": Control("edges between other regions than their own", _graphs_shuffled, regions=True),
    "phrases_permuted": Control(
        "phrases in reverse order, relations turned round: the caption says the same", _phrases_permuted
    ),
    "colours_swapped": Control("two objects exchange their colour words: the image must follow", _colours_swapped),
    "one_word": Control("one object's colour word changed alone: nothing else may change", _one_word),
    "region_prompt": Control(
        "one object's region prompted with another colour, against the caption: it alone may follow",
        _region_prompt,
        regions=True,
    ),
    "half_the_steps": Control(
        "half the sampler's steps in each stage: no more calls of the network than stage 1 alone has",
        _right,
        regions=True,
        steps=0.5,
    ),
}
