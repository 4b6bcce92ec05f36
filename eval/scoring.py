"""Scores of single items that need no network: pixels, sketch fidelity, binding and attention.

A task names the functions Scoring -> Values that apply to it (`Task.metrics`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eval.edges import EdgeReader
from eval.metrics import attention as attention_scores
from eval.metrics import binding
from eval.metrics.binding import ObjectBinding, bind
from eval.metrics.image import seam_ratio
from eval.metrics.sketch_fidelity import sketch_fidelity_set
from eval.registry import image_scores
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS, OBJECT_COLOURS, WIDE_COLOURS

Values = dict[str, list]  # of each metric, in the order of items: a number, a list of one for each object, or None


@dataclass(frozen=True)
class Scoring:
    """The images of one stage, and the data to score them by.

    Args:
        images: (H,W,3) uint8, one for each example.
        examples: The items, with the true image, the sketch and a task's further conditions.
        reader: Detects the edges that are compared with sketches.
        seed: The run's seed, for chance levels.
        token_spans: Caption -> characters of its tokens.
        maps: The attention of regions to tokens, (N,T) of each image; None where there is none.
        done: Called with the number of images that have been read.
    """

    images: Sequence[np.ndarray]
    examples: Sequence[Example]
    reader: EdgeReader
    seed: int
    token_spans: Callable[[str], list[tuple[int, int]]] | None = None
    maps: Sequence[np.ndarray] | None = None
    done: Callable[[int], object] | None = None

    @cached_property
    def scenes(self) -> list[list[ObjectBinding] | None]:
        """The objects of each image, with the colours that they have in it."""
        return [bindings(image, e.item) for image, e in zip(self.images, self.examples, strict=True)]


def sketch_metrics(s: Scoring) -> Values:
    """Fidelity of each image to its sketch, next to another item's."""
    return sketch_values(LazyItems(lambda i: s.examples[i].sketch, len(s.examples)), s.images, s.reader, s.done)


def binding_metrics(s: Scoring) -> Values:
    """Correctness of the objects' colours and fills."""
    return binding_values(s.scenes)


def attention_metrics(s: Scoring) -> Values:
    """Attention of regions to the objects' phrases; empty if the model has no regions."""
    if s.maps is None or s.token_spans is None:
        return {}
    return attention_values(s.maps, s.examples, s.token_spans, s.seed)


def pixel_values(images: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> Values:
    """mse, psnr, ssim and any other `score` of eval.registry: each image (H,W,3) uint8 against its reference."""
    functions = image_scores()
    rows = [[score(*pair) for score in functions.values()] for pair in zip(images, references, strict=True)]
    return dict(zip(functions, map(list, zip(*rows, strict=True)), strict=True))


def seam_values(images: Sequence[np.ndarray], patch: int) -> Values:
    """Seam ratio of images that were generated in patches of `patch` pixels."""
    return {"seam_ratio": [seam_ratio(image, patch) for image in images]}


def sketch_values(
    sketches: Sequence[np.ndarray], images: Sequence[np.ndarray], reader: EdgeReader,
    done: Callable[[int], object] | None = None,
) -> Values:  # fmt: skip
    """Fidelity of each image to its sketch, and as chance level (`_shuffled`) to another item's sketch.

    Args:
        sketches: (H,W) in [0,1] each.
        images: (H,W,3) uint8 each.
        reader: Detects the images' edges.
        done: Called with the number of images that have been read.

    Returns:
        Values by metric. A single item has no chance level: None.
    """
    right, shuffled = sketch_fidelity_set(sketches, images, reader, done=done)
    values: Values = {}
    for name in right[0].values() if right else ():
        values[name] = [f.values()[name] for f in right]
        values[f"{name}_shuffled"] = [f.values()[name] for f in shuffled] or [None] * len(right)
    return values


def can_bind(item: Item) -> bool:
    """Whether the caption gives every object a colour that can be read back from pixels."""
    return bool(item.objects) and all(o.colour in WIDE_COLOURS for o in item.objects)


def bindings(image: np.ndarray, item: Item) -> list[ObjectBinding] | None:
    """Colours and fills that the item's objects have in an image (H,W,3) uint8; None if `can_bind` is false."""
    if not can_bind(item):
        return None
    # black, brown and white are candidates only where something should have them
    usual = all(thing.colour in OBJECT_COLOURS for thing in item.objects)
    colours = OBJECT_COLOURS if usual else WIDE_COLOURS
    return bind(image, item.objects, item.object_map, colours, BACKGROUND_COLOURS)


def binding_values(scenes: Sequence[list[ObjectBinding] | None]) -> Values:
    """Values of each scene's objects; None for a scene that has no binding and for objects that a metric leaves out."""
    if all(scene is None for scene in scenes):
        return {}
    by_scene = [scene and binding.binding_values(scene) for scene in scenes]
    names = next(values for values in by_scene if values)
    return {name: [values and values[name] for values in by_scene] for name in names}


def attention_values(
    maps: Sequence[np.ndarray], examples: Sequence[Example], token_spans: Callable[[str], list[tuple[int, int]]], seed: int
) -> Values:
    """Pointing accuracy, IoU and entropy of the regions' attention to each object's phrase, with chance levels.

    Args:
        maps: (N,T) attention of each item's regions to tokens, padded.
        examples: The items.
        token_spans: Caption -> characters of its tokens.
        seed: Of the shuffled chance level.
    """
    items = []
    for attention, example in zip(maps, examples, strict=True):
        spans, item = token_spans(example.item.caption), example.item
        masks = [item.object_map == thing.label for thing in item.objects]
        tokens = [[i for i, (a, b) in enumerate(spans) if a < thing.span[1] and b > thing.span[0]]
                  for thing in item.objects]  # fmt: skip
        own = attention[: example.regions.count, : len(spans)]
        items.append(attention_scores.region_text(own, example.regions.labels, masks, tokens))
    values = attention_scores.attention_values(items, seed)
    return values | _of_repeated("pointing_accuracy", values, examples)


def _of_repeated(name: str, values: Values, examples: Sequence[Example]) -> Values:
    """The metric on objects whose shape occurs twice in the scene, which only relations or order distinguish."""
    if name not in values or not any(thing.repeated for e in examples for thing in e.item.objects):
        return {}
    flags = [[thing.repeated for thing in e.item.objects] for e in examples]
    rows = zip(values[name], flags, strict=True)
    return {f"{name}_repeated": [v and [x if twice else None for x, twice in zip(v, f, strict=True)] for v, f in rows]}
