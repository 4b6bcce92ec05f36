"""Shape scenes as layers: a textured ground and objects with soft shadows, which can be rendered without any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, partial

import cv2
import numpy as np

from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item, SceneObject
from ragaf_exp.data.sources import render
from ragaf_exp.data.sources.captions import annotate, list_caption, object_phrase
from ragaf_exp.data.sources.grounds import WAVES, ground
from ragaf_exp.data.sources.palette import BACKGROUND_NAMES
from ragaf_exp.data.sources.scenes import HELDOUT, Scenes, Spec, place
from ragaf_exp.data.sources.shapes import SHAPES, pose
from ragaf_exp.data.split import split_id

OFFSET = (1.5, 4.0)  # of a shadow, in 64ths of the side
BLUR = (0.8, 2.0)
DARKNESS = (0.25, 0.5)  # share of the light that a shadow takes away
GROUNDS = tuple(WAVES)


@dataclass(frozen=True)
class Layer:
    """An object, ready to be painted."""

    spec: Spec
    box: tuple[slice, slice]
    alpha: np.ndarray  # (h,w) within the box
    colour: np.ndarray  # (3,) or (h,w,3) within the box, in [0,255]
    strokes: np.ndarray  # (H,W) float32 in [0,1], its outline as drawn
    shadow: np.ndarray  # (H,W) float32 in [0,1], share of the light that its shadow takes away
    contours: tuple[np.ndarray, ...]  # (POINTS,2) each, in units: its outline, and that of a hollow object's hole

    def mask(self, size: int) -> np.ndarray:
        """(size, size) bool: pixels of which at least half are the object's."""
        full = np.zeros((size, size), bool)
        full[self.box] = self.alpha >= 0.5
        return full


@dataclass(frozen=True)
class Layout:
    """Objects and background of a scene before it is rendered, in the order of the caption, from left to right."""

    specs: tuple[Spec, ...]
    centres: np.ndarray  # (N,2) in units
    background: str

    def caption(self, without: Collection[int] = ()) -> tuple[str, list[tuple[int, int]]]:
        """Caption of the objects shown, and the span of each."""
        shown = [spec for i, spec in enumerate(self.specs) if i not in without]
        return list_caption([object_phrase(spec.shape, spec.colour, spec.fill) for spec in shown], self.background)


@dataclass(frozen=True)
class LayeredScene:
    """A ground and its layers, in the order of the caption."""

    layout: Layout
    ground: np.ndarray  # (H,W,3) float32 in [0,255]
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        return self.ground.shape[0]

    def image(self, without: Collection[int] = ()) -> np.ndarray:
        """Render the scene (H,W,3) uint8 without some layers, whose shadows go too."""
        shown = [layer for i, layer in enumerate(self.layers) if i not in without]
        canvas = self.ground.copy()
        for layer in shown:
            canvas *= 1 - layer.shadow[..., None]
        for layer in shown:
            render.paint(canvas, layer.alpha, layer.box, layer.colour)
        return np.rint(canvas).astype(np.uint8)

    def drawing(self, without: Collection[int] = ()) -> np.ndarray:
        """The sketch (H,W) in [0,1] of the layers shown."""
        shown = [layer.strokes for i, layer in enumerate(self.layers) if i not in without]
        return np.max(shown, axis=0) if shown else np.zeros((self.size, self.size), np.float32)

    def annotation(self, without: Collection[int] = ()) -> tuple[str, tuple[SceneObject, ...], np.ndarray]:
        """Caption, objects and object map (H,W) uint8 of the layers shown."""
        shown = [layer for i, layer in enumerate(self.layers) if i not in without]
        object_map = np.zeros((self.size, self.size), np.uint8)
        for label, layer in enumerate(shown, 1):
            object_map[layer.mask(self.size)] = label
        caption, spans = self.layout.caption(without)
        kinds = [(layer.spec.shape, layer.spec.colour, layer.spec.fill) for layer in shown]
        return caption, annotate(kinds, spans, HELDOUT), object_map


class LayeredScenes:
    """Samples layered scenes with the objects, places and splits of `Scenes`.

    Args:
        scenes: The source of objects.
        grounds: Kinds of ground, of WAVES, each as likely as the others.
        shadow_share: Probability that the objects of a scene cast shadows.
    """

    def __init__(self, scenes: Scenes, grounds: Collection[str] = GROUNDS, shadow_share: float = 0.7):
        self.scenes, self.grounds, self.shadow_share = scenes, tuple(grounds), shadow_share

    @cached_property
    def _grid(self) -> render.Grid:
        return render.grid_for(self.scenes.size, self.scenes.size)

    def sample(self, rng: np.random.Generator, heldout: float = 0.0) -> LayeredScene:
        """Sample a scene. heldout: probability that an object is one of the held-out colour-shape pairs."""
        return self.render(self.layout(rng, heldout), rng)

    def layout(self, rng: np.random.Generator, heldout: float = 0.0) -> Layout:
        """Sample objects and background without rendering them; equal at every size of the image."""
        count = int(rng.integers(self.scenes.min_objects, self.scenes.max_objects + 1))
        specs = self.scenes.specs(rng, count, heldout, 0.0)
        centres = place(rng, np.array([spec.radius for spec in specs]))
        order = np.argsort(centres[:, 0])
        background = BACKGROUND_NAMES[int(rng.integers(len(BACKGROUND_NAMES)))]
        return Layout(tuple(specs[i] for i in order), centres[order], background)

    def render(self, layout: Layout, rng: np.random.Generator) -> LayeredScene:
        """Sample ground, light and outlines, and render them."""
        kind = self.grounds[int(rng.integers(len(self.grounds)))]
        base = ground(rng, kind, layout.background, self.scenes.size)
        light = _Light.sample(rng) if rng.random() < self.shadow_share else None
        layers = tuple(self._layer(rng, *thing, light) for thing in zip(layout.specs, layout.centres, strict=True))
        return LayeredScene(layout, base, layers)

    def _layer(self, rng: np.random.Generator, spec: Spec, centre: np.ndarray, light: _Light | None) -> Layer:
        grid, size = self._grid, self.scenes.size
        outline = (pose(SHAPES[spec.shape], rng, spec.radius) + centre).astype(np.float32)
        contours = [outline] + ([render.hole_of(outline, grid)] if spec.fill == "hollow" else [])
        box, alpha = render.coverage(contours, grid)
        colour = render.object_colour(spec.colour, spec.fill, box, grid, rng)
        lines = np.zeros((size * grid.supersample,) * 2, np.uint8)
        for contour in contours:
            render.stroke(lines, contour, grid, rng, 0.0)
        full = np.zeros((size, size), np.float32)
        full[box] = alpha
        shadow = np.zeros_like(full) if light is None else light.cast(full)
        return Layer(spec, box, alpha, colour, grid.average(lines), shadow, tuple(contours))


class ObjectScenes(ABC):
    """A source of scenes of which one object is chosen; every item is a pure function of (seed, split, index).

    Args:
        scenes: The source of objects, which has the seed and the lengths of the splits.
        shadow_share: Share of scenes whose objects cast shadows.
        stream: Number of the source's random generators, so that those of another source differ.
    """

    def __init__(self, scenes: Scenes, shadow_share: float, stream: int):
        self.size, self.seed, self.lengths, self._stream = scenes.size, scenes.seed, scenes.lengths, stream
        self._scenes = LayeredScenes(scenes, shadow_share=shadow_share)

    def split(self, name: str) -> LazyItems[Item]:
        """Return the items of "train", "val" or "test". Raises UserError for another name."""
        split_id(name)
        return LazyItems(partial(self._make, name), self.lengths[name], partial(self._caption, name))

    @abstractmethod
    def _make(self, split: str, index: int) -> Item: ...

    def _caption(self, split: str, index: int) -> str:
        _, layout, chosen = self._start(split, index)
        return layout.caption([chosen])[0]

    def _start(self, split: str, index: int) -> tuple[np.random.Generator, Layout, int]:
        """Generator of an item, its scene before it is rendered, and the object that is chosen."""
        rng = np.random.default_rng([self.seed, split_id(split), index, self._stream])
        layout = self._scenes.layout(rng)
        return rng, layout, int(rng.integers(len(layout.specs)))


@dataclass(frozen=True)
class _Light:
    """The light of a scene, which casts every object's shadow alike."""

    offset: np.ndarray  # (2,) x and y, in 64ths of the side
    blur: float
    darkness: float

    @staticmethod
    def sample(rng: np.random.Generator) -> _Light:
        length, blur, darkness = (low + rng.random() * (high - low) for low, high in (OFFSET, BLUR, DARKNESS))
        angle = rng.random() * np.pi  # downwards, as light comes from above
        return _Light(length * np.array([np.cos(angle), np.sin(angle)]), blur, darkness)

    def cast(self, cover: np.ndarray) -> np.ndarray:
        """Coverage (H,W) of an object -> share of the light that its shadow takes away."""
        unit = cover.shape[0] / render.UNITS
        (x, y), size = self.offset * unit, cover.shape[::-1]
        moved = cv2.warpAffine(cover, np.array([[1, 0, x], [0, 1, y]], np.float32), size)
        return self.darkness * cv2.GaussianBlur(moved, (0, 0), self.blur * unit)
