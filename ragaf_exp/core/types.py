"""Data types of the pipeline, in the order of processing: Item -> Regions -> Graph -> Example -> Batch.

Shapes: B batch, H W image, N regions, F node features, E edge features. A field has the same name in every type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from ragaf_exp.core.edits import RegionEdits

MAPPINGS = ("conditions", "present")  # fields of a batch that hold tensors by name


@dataclass(frozen=True)
class SceneObject:
    """One annotated object of a scene, known only where the data source renders or composes the scene itself."""

    label: int  # its value in Item.object_map, from 1
    shape: str  # "star", or the noun of a real drawing
    colour: str  # the palette's name
    fill: str  # plain, striped, dotted, hollow; "" where the caption does not mention it
    span: tuple[int, int]  # [start, end) of its phrase in the caption, in characters
    heldout: bool = False  # the colour-shape pair never occurs in training
    repeated: bool = False  # another object of the scene has the same shape
    relation: str = ""  # that alone distinguishes it from others of its shape, in the caption


@dataclass(frozen=True)
class Crop:
    """The part of a picture that an item shows, in pixels of the picture."""

    top: int
    left: int
    height: int
    width: int
    whole: tuple[int, int]  # height and width of the picture

    @property
    def cut(self) -> tuple[float, float, float, float]:
        """Shares of the picture that are cut off at the top, left, bottom and right; negative where it is padded."""
        (height, width), bottom, right = self.whole, self.top + self.height, self.left + self.width
        return self.top / height, self.left / width, 1 - bottom / height, 1 - right / width


@dataclass(frozen=True)
class Caption:
    """One of several captions of an item, with the objects that it names."""

    text: str
    objects: tuple[SceneObject, ...] = ()


@dataclass(frozen=True)
class Item:
    """One example from a data source, before sketch extraction."""

    key: str  # stable identity; splits and noise depend on it
    image: np.ndarray  # (H,W,3) uint8
    caption: str
    drawing: np.ndarray | None = None  # (H,W) float32 in [0,1], 1 = stroke
    objects: tuple[SceneObject, ...] = ()
    object_map: np.ndarray | None = None  # (H,W) uint8, 0 = background, else SceneObject.label
    crop: Crop | None = None  # what the image shows of the source's picture; None = all of it
    conditions: Mapping[str, np.ndarray] = field(default_factory=dict)  # further inputs of a task, see Example
    task: int | None = None  # index of its task, where one network is trained on several
    captions: tuple[Caption, ...] = ()  # all captions, where training samples one at each step; the first is `caption`
    difficulty: int | None = None  # the data set's own rating of the drawing


@dataclass(frozen=True)
class Regions:
    """Enclosed areas of a sketch."""

    labels: np.ndarray  # (H,W) int16: region index, -1 = no region
    count: int  # N, 0 to max_regions
    background: int  # index of the background region, -1 = none
    parent: np.ndarray  # (N,) int16: index of the enclosing region, -1 = none
    depth: np.ndarray  # (N,) int16: number of enclosing regions


@dataclass(frozen=True)
class Graph:
    """Region graph, unpadded."""

    nodes: np.ndarray  # (N,F) float32
    edges: np.ndarray  # (N,N,E) float32, edges[i, j] describes the edge i -> j
    edge_mask: np.ndarray  # (N,N) bool


@dataclass(frozen=True)
class Example:
    """An item with its sketch, regions and graph, as a loader's worker returns it."""

    item: Item
    sketch: np.ndarray  # (H,W) float32 in [0,1], 1 = stroke
    regions: Regions
    graph: Graph
    edits: RegionEdits | None = None
    # a task's conditions beyond caption and sketch: images (H,W,3) uint8, maps (H,W) or (H,W,C) float, numbers (P,) float
    conditions: Mapping[str, np.ndarray] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()  # conditions that it does not have, such as a sketch that was not given


@dataclass(frozen=True)
class KeptImages:
    """Images of which only a part is sampled again."""

    image: torch.Tensor  # (B,3,H,W) in [-1,1]
    redo: torch.Tensor  # (B,1,H,W) bool: the part
    strength: float  # share of the noise schedule, in (0,1]

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> KeptImages:
        """Apply a function to both tensors."""
        return replace(self, image=change(self.image), redo=change(self.redo))


@dataclass(frozen=True)
class EditTensors:
    """The region edits of a batch; an item without edits has the defaults of RegionEdit."""

    prompts: list[list[str]]  # of each item's regions; "" = the region reads the caption
    importance: torch.Tensor | None = None  # (B,N); None where all are 1, as is `outline`
    outline: torch.Tensor | None = None  # (B,N)
    # (B,N,2) start and end of RegionEdit; None where all regions read their text at every timestep
    period: torch.Tensor | None = None
    keep: KeptImages | None = None  # of all items or of none

    def __getitem__(self, index: slice) -> EditTensors:
        """Select some of the batch's items."""
        return replace(self.each(lambda value: value[index]), prompts=self.prompts[index])

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> EditTensors:
        """Apply a function to every tensor."""
        numbers = (None if x is None else change(x) for x in (self.importance, self.outline, self.period))
        return EditTensors(self.prompts, *numbers, None if self.keep is None else self.keep.each(change))


@dataclass(frozen=True)
class Batch:
    """Padded tensors for one step. N is the largest region count in the batch (at least 1)."""

    keys: list[str]
    captions: list[str]
    image: torch.Tensor  # (B,3,H,W) in [-1,1]
    sketch: torch.Tensor  # (B,1,H,W) in [0,1], 1 = stroke
    labels: torch.Tensor  # (B,H,W) int64, -1 = no region
    nodes: torch.Tensor  # (B,N,F)
    node_mask: torch.Tensor  # (B,N) bool, True = a region
    edges: torch.Tensor  # (B,N,N,E)
    edge_mask: torch.Tensor  # (B,N,N) bool
    spans: torch.Tensor | None = None  # (B,N,2) int64: [start, end) of each region's phrase in the caption, (0,0) = none
    latent: torch.Tensor | None = None  # (B,C,h,w): the encoded image, where latents are cached
    text: Any = None  # models.conditioning.Text: the encoded captions, where text features are cached
    crops: torch.Tensor | None = None  # (B,4) Crop.cut of each item, 0 where it shows all; None where all do
    # the encoded empty caption, which replaces a dropped one: (1,T,D), or (B,T,D) where it depends on the item's image
    no_text: Any = None
    edits: EditTensors | None = None  # of regions, where an example has any
    # a task's further conditions: images (B,3,H,W) in [-1,1], maps (B,C,H,W), numbers (B,P)
    conditions: Mapping[str, torch.Tensor] = field(default_factory=dict)
    present: Mapping[str, torch.Tensor] = field(default_factory=dict)  # condition -> (B,) bool, where an item has none
    task: torch.Tensor | None = None  # (B,) int64: index of each item's task, where there are several

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> Batch:
        """Copy the tensors to a device."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Copy the tensors to pinned memory, for asynchronous transfers; a loader calls it."""
        return self._each(torch.Tensor.pin_memory)

    def smaller(self, scale: int) -> Batch:
        """Downsample to 1/scale of the resolution, for a model without regions; pixels are averaged over blocks."""
        if scale == 1:
            return self
        image, sketch = (torch.nn.functional.avg_pool2d(x, scale) for x in (self.image, self.sketch))
        further = {k: torch.nn.functional.avg_pool2d(x, scale) if x.ndim == 4 else x for k, x in self.conditions.items()}
        labels = self.labels[:, ::scale, ::scale]
        return replace(self, image=image, sketch=sketch, labels=labels, latent=None, conditions=further)

    def rows(self, index: slice) -> Batch:
        """Select some of the batch's items."""
        apart = ("text", "no_text", *MAPPINGS)
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        some = {name: None if value is None else value[index] for name, value in values.items()}
        some |= {k: {name: value[index] for name, value in getattr(self, k).items()} for k in MAPPINGS}
        text = None if self.text is None else self.text.each(lambda value: value[index])
        empty = self.no_text
        if empty is not None and len(empty.tokens) > 1:
            empty = empty.each(lambda value: value[index])
        return Batch(**some, text=text, no_text=empty)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Apply a function to every tensor."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {k: change(v) for k, v in values.items() if isinstance(v, torch.Tensor)}
        changed |= {k: values[k].each(change) for k in ("text", "no_text", "edits") if values[k] is not None}
        changed |= {k: {name: change(value) for name, value in getattr(self, k).items()} for k in MAPPINGS}
        return replace(self, **changed)
