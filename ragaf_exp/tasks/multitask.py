"""One network for several tasks: a learned token says which, and each batch is of one task."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.config.build import build
from ragaf_exp.config.options import option
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Batch, Example, Item
from ragaf_exp.diffusion.base import Process
from ragaf_exp.models.inputs import Encode, Keep, Source
from ragaf_exp.tasks.base import Condition, Denoised, Panel, Task, resolved

if TYPE_CHECKING:
    from eval.scoring import Scoring, Values


class Multitask(Task):
    """Delegates each batch to the task that its items belong to.

    The channels of all tasks share one layout: `extra` is padded in front, where the hole is, and the hint behind its
    first channel, the sketch. A condition of the same name is the same condition in every task.

    Args:
        process: The diffusion process (wiring).
        tasks: Options of the group `task`, in the order of the sources of data=mixture.
        caption_dropout: Probability that a training item's caption is dropped.
        sketch_dropout: The same for its sketch, with the regions and the graph that come from it.

    Raises:
        UserError: A task is unknown.
    """

    columns = {"image": "image", "mask": "image", "object": "image", "prompt": "text", "sketch": "drawing"}
    optional = ("mask", "object", "prompt", "sketch")
    uses_codec = True

    def __init__(
        self, process: Process, tasks: limits.Names = ("inpaint", "remove"), caption_dropout: limits.Share = 0.1,
        sketch_dropout: limits.Share = 0.1,
    ):  # fmt: skip
        self.names = list(tasks)
        self.parts: list[Task] = [build(option("task", n, "task.tasks"), "task.tasks", process=process) for n in tasks]
        self.shared = {"text": caption_dropout, "sketch": sketch_dropout}
        self.tokens, self.selected = len(self.parts), 0
        self.has_source = all(part.has_source for part in self.parts)
        self.hint_channels = max(part.hint_channels for part in self.parts)
        self.metrics = tuple(partial(self._scores, task) for task in range(len(self.parts)))

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of all tasks, by name; each has the maps that any task gives it."""
        merged: dict[str, Condition] = {}
        for condition in (c for part in self.parts for c in part.conditions):
            known = merged.get(condition.name, condition)
            dropout = self.shared.get(condition.name, condition.dropout)
            merged[condition.name] = replace(known, dropout=dropout, maps={**known.maps, **condition.maps})
        return tuple(merged.values())

    @property
    def maps(self) -> dict[str, int]:
        """The arrays of all tasks."""
        return {name: channels for part in self.parts for name, channels in part.maps.items()}

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The first panel of each item's task."""
        return (Panel("given", self._shown),)

    def make_conditions(self, example: Example, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        """The conditions of the item's task, with zeros for those of the others, which no network reads."""
        task = example.item.task
        if task is None:
            raise UserError(f"data: {example.item.key} belongs to no task; take data=mixture")
        if task >= len(self.parts):
            raise UserError(f"data.sources: has more entries than task.tasks, {', '.join(self.names)}; give one for each")
        made, shape = self.parts[task].make_conditions(example, rng), example.item.image.shape[:2]
        missing = {name: channels for name, channels in self.maps.items() if name not in made}
        return {**made, **{name: _nothing(shape, channels) for name, channels in missing.items()}}

    @property
    def choices(self) -> Mapping[str, Task]:
        """The tasks by name."""
        return dict(zip(self.names, self.parts, strict=True))

    def select(self, name: str, given: Collection[str]) -> None:
        """Select the task of sampling requests.

        Args:
            name: The task.
            given: Names of the files of a request.

        Raises:
            UserError: There is no such task, or it needs another file.
        """
        if name not in self.names:
            raise UserError(f"task={name}: this run has {', '.join(self.names)}; name one of them")
        self.selected = self.names.index(name)
        task = self.parts[self.selected]
        absent = [column for column in task.columns if column not in (*task.optional, *given)]
        if absent:
            raise UserError(f"{absent[0]}=: missing; task={name} needs {', '.join(set(task.columns) - set(task.optional))}")

    def request_item(self, item: Item, inputs: Mapping[str, np.ndarray]) -> Item:
        """The item of a request of the selected task.

        Args:
            item: Prompt and sketch.
            inputs: The pictures of its other columns, by name.
        """
        return replace(self.parts[self.selected].request_item(item, inputs), task=self.selected)

    def full_resolution(self, picture: np.ndarray, given: np.ndarray, result: np.ndarray) -> np.ndarray:
        """The result of the selected task for a whole picture.

        Args:
            picture: (H,W,3) uint8 of any size.
            given: (size,size,3) uint8, as the network saw it.
            result: (size,size,3) uint8.

        Returns:
            (H,W,3) uint8.
        """
        return self.parts[self.selected].full_resolution(picture, given, result)

    def extra_channels(self, latent_channels: int) -> int:
        """The most that any task has."""
        return max(part.extra_channels(latent_channels) for part in self.parts)

    def extra(self, batch: Batch, keep: Keep, encode: Encode) -> Tensor | None:
        """The channels of the batch's task behind zeros.

        Args:
            batch: The batch and its conditions.
            keep: The conditions that are dropped.
            encode: Images (B,3,H,W) in [-1,1] -> latents (B,C,h,w).

        Returns:
            (B,E,h,w') of the most channels of any task, or None for a task without.
        """
        latent_channels = 0

        def encoded(image: Tensor) -> Tensor:
            nonlocal latent_channels
            latent = encode(image)
            latent_channels = latent.shape[1]
            return latent

        extra = self._of(batch).extra(batch, keep, encoded)
        if extra is None:
            return None
        return F.pad(extra, (0, 0, 0, 0, self.extra_channels(latent_channels) - extra.shape[1], 0))

    def source(self, batch: Batch, keep: Keep) -> Source | None:
        """The image that the batch's task edits."""
        return self._of(batch).source(batch, keep)

    def hint_image(self, batch: Batch, keep: Keep) -> tuple[Tensor, Tensor | None]:
        """The hint of the batch's task, with zeros between the sketch and the rest."""
        image, shown = self._of(batch).hint_image(batch, keep)
        if shown is not None:
            image = image * shown[:, None, None, None]
        missing = self.hint_channels - image.shape[1]
        return torch.cat([image[:, :1], image.new_zeros(len(image), missing, *image.shape[2:]), image[:, 1:]], dim=1), None

    def region_labels(self, batch: Batch) -> Tensor:
        """Labels as the batch's task lays them out."""
        return self._of(batch).region_labels(batch)

    def to_denoiser(self, x_t: Tensor, t: Tensor, extra: Tensor | None) -> Tensor:
        """The layout of the only task that changes it for such channels.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).
            extra: As of `extra`.

        Returns:
            (B,C,h,w').
        """
        layouts = (part.to_denoiser(x_t, t, extra) for part in self.parts)
        return next((layout for layout in layouts if layout is not x_t), x_t)

    def valid(self, x_t: Tensor, extra: Tensor | None) -> Tensor | None:
        """The known cells, by the hole of the tasks that have one; the channel is zero for all others.

        Args:
            x_t: Noised latents, (B,C,h,w).
            extra: As of `extra`.

        Returns:
            (B,1,h',w') bool; None if no task has a hole.
        """
        masks = (part.valid(x_t, extra) for part in self.parts)
        return next((mask for mask in masks if mask is not None), None)

    def from_denoiser(self, prediction: Tensor, x_t: Tensor) -> Tensor:
        """The part of a prediction that belongs to x_t."""
        for part in self.parts:
            prediction = part.from_denoiser(prediction, x_t)
        return prediction

    def losses(self, step: Denoised) -> dict[str, Tensor]:
        """The losses of the batch's task."""
        return self._of(step.batch).losses(step)

    def finish(self, image: Tensor, batch: Batch) -> Tensor:
        """The image (B,3,H,W) as the batch's task finishes it."""
        return self._of(batch).finish(image, batch)

    def _of(self, batch: Batch) -> Task:
        """The task of a batch; of a planner's batch, which has none, the one with the widest input."""
        if batch.task is None:
            return max(self.parts, key=lambda part: part.spread)
        return self.parts[int(batch.task[0])]

    def _shown(self, example: Example) -> np.ndarray:
        assert example.item.task is not None
        return self.parts[example.item.task].panels[0].of(example)

    def _scores(self, task: int, s: Scoring) -> Values:
        """The metrics of one task on its items, as TASK/METRIC; None for all other items."""
        part = self.parts[task]
        rows = [i for i, example in enumerate(s.examples) if example.item.task == task]
        if not rows:
            return {}
        examples = [self._stripped(s.examples[i], part) for i in rows]
        some = replace(s, images=LazyItems(lambda i: s.images[rows[i]], len(rows)), examples=examples, maps=None, done=None)
        values: Values = {}
        for metric in part.metrics:
            values |= resolved(metric)(some)
        place = {row: i for i, row in enumerate(rows)}
        return {f"{self.names[task]}/{name}": [of[place[i]] if i in place else None for i in range(len(s.examples))]
                for name, of in values.items()}  # fmt: skip

    def _stripped(self, example: Example, part: Task) -> Example:
        """An example with the conditions of its task alone."""
        own = {name: array for name, array in example.conditions.items() if name in part.maps}
        return replace(example, conditions=own)


def _nothing(shape: tuple[int, ...], channels: int) -> np.ndarray:
    """A condition of another task: a black image (H,W,3) uint8, or a map of zeros (H,W) float32."""
    return np.zeros((*shape, 3), np.uint8) if channels == 3 else np.zeros(shape, np.float32)
