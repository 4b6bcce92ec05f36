"""The protocol of a task: its conditions, the inputs of the networks, its losses, metrics, panels and sampling columns.

A task is one class here and one YAML in conf/task. The trainer, the sampler, the evaluation and the figures ask it for
what differs between tasks, and never for its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pkgutil import resolve_name
from typing import Any, ClassVar

import cv2
import numpy as np
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Batch, Example, Item
from ragaf_exp.diffusion.base import Process
from ragaf_exp.models.inputs import Inputs

REGIONS = ("labels", "nodes", "node_mask", "edges", "edge_mask")  # fields of a batch that come from the sketch
Reference = str | Callable[..., Any]  # a function, or "module:function" of a layer above this one


@dataclass(frozen=True)
class Condition:
    """One condition: dropped as a whole in training, shuffled as a whole to measure how much the model uses it.

    name: its key among those that are dropped, and in the metrics. dropout: probability that training drops it.
    maps: channels of its arrays in Batch.conditions, by their keys. fields: its other fields of Batch.
    """

    name: str
    dropout: float
    maps: Mapping[str, int] = field(default_factory=dict)
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One picture of an item in grids and reports. picture: Example -> (H,W,3) uint8, or (H,W) float, 1 = stroke."""

    name: str
    picture: Reference

    def of(self, example: Example) -> np.ndarray:
        """The picture of an example."""
        return resolved(self.picture)(example)


@dataclass(frozen=True)
class Denoised:
    """The prediction of a training step, and everything that a loss can compare it with."""

    batch: Batch
    x_0: Tensor  # (B,C,h,w)
    x_t: Tensor  # (B,C,h,w)
    timesteps: Tensor  # (B,)
    prediction: Tensor  # (B,C,h,w), of the process's prediction type
    target: Tensor  # (B,C,h,w)
    process: Process
    decode: Callable[[Tensor], Tensor]  # latents -> images (B,3,H,W) in [-1,1], with gradients

    @property
    def estimate(self) -> Tensor:
        """The estimate of x_0, (B,C,h,w)."""
        return self.process.to_x0(self.prediction, self.x_t, self.timesteps)


def denoising_loss(
    process: Process, prediction: Tensor, target: Tensor, timesteps: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Mean squared error, weighted by timestep.

    Args:
        process: The diffusion process, which has the weights.
        prediction: (B,C,h,w).
        target: (B,C,h,w).
        timesteps: (B,).
        mask: (B,1,h,w), the weight of each latent pixel; an item's error is normalised by their sum. None: all alike.
    """
    squares = (prediction.float() - target.float()).square()
    if mask is None:
        error = squares.mean(dim=(1, 2, 3))  # (B,)
    else:
        error = (squares.mean(1, keepdim=True) * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1e-6)
    return (process.weight(timesteps) * error).mean()


class Task(Inputs, ABC):
    """The task that a network is trained for. Subclasses take the settings of their YAML in the constructor.

    mirror, crops: augmentation of training items, see data.variants. assign: region prompts in training, see data.assign.
    columns: of a sampling request, name -> kind
    (text, drawing, image or numbers), a literal, since command lines read it from the source. optional: those of them that
    can be left out. metrics: functions Scoring -> values by metric, see eval.scoring; their metrics are in eval.registry.
    rivals: simple methods, Example -> (H,W,3) uint8, that the evaluation scores by the same metrics.
    shuffles: conditions that the evaluation also exchanges between items, for the figures without skill.
    loss_weights: of the losses that the group `loss` has no weight for. dream: the power of DREAM, see
    training.losses.dream; 0 = trained without.
    """

    rivals: Mapping[str, Reference] = {}
    shuffles: tuple[str, ...] = ()
    mirror: float = 0.0
    crops: int = 0
    assign: float = 0.0
    dream: float = 0.0
    columns: ClassVar[dict[str, str]]
    optional: ClassVar[tuple[str, ...]] = ()
    metrics: tuple[Reference, ...] = ()
    loss_weights: Mapping[str, float] = {}

    @property
    @abstractmethod
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions, in the order in which training draws which of them are dropped."""

    @property
    @abstractmethod
    def panels(self) -> tuple[Panel, ...]:
        """Pictures of an item's conditions, in the order of a grid; samples and the true image follow them."""

    @property
    def loss_network(self) -> nn.Module | None:
        """A frozen network for losses of images, which training moves to its device; None for a task without one."""
        return None

    @property
    def dropout(self) -> dict[str, float]:
        """Probability of dropping each condition."""
        return {condition.name: condition.dropout for condition in self.conditions}

    @property
    def maps(self) -> dict[str, int]:
        """Channels of every array in Batch.conditions."""
        return {name: channels for condition in self.conditions for name, channels in condition.maps.items()}

    def make_conditions(self, example: Example, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        """The further conditions of an example, by the keys of `maps`; the default passes those of the item on.

        A task that makes conditions takes those that the item already has: a sampling request brings its own.

        Args:
            example: The item with sketch, regions and graph.
            rng: A function of seed and item, and in training of the step too.
        """
        return example.item.conditions

    @property
    def choices(self) -> Mapping[str, Task]:
        """The tasks of a run of several, by name; none for a run of one."""
        return {}

    def select(self, name: str, given: Collection[str]) -> None:
        """Select the task of sampling requests, in a run of several.

        Args:
            name: The task; "" where the command line names none.
            given: Names of the files of a request.

        Raises:
            UserError: A task is named, and this run has one only.
        """
        if name:
            raise UserError(f"task={name}: this run has one task; leave it out")

    def request_drawing(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The drawing (H,W) in [0,1] that another column of a sampling request contains; None where there is none."""
        return None

    def request_item(self, item: Item, inputs: Mapping[str, np.ndarray]) -> Item:
        """The item of a sampling request.

        Args:
            item: Its prompt, its sketch where there is one, and a black image of the size that is sampled.
            inputs: The pictures of its other columns, (H,W,3) uint8 of any size, and its numbers (n,), by name.
        """
        return replace(item, conditions=dict(inputs)) if inputs else item

    def full_resolution(self, picture: np.ndarray, given: np.ndarray, result: np.ndarray) -> np.ndarray:
        """The result for a whole picture; the default enlarges it to the picture's size.

        Args:
            picture: (H,W,3) uint8 of any size.
            given: (size,size,3) uint8, the picture as the network saw it, padded to a square.
            result: (size,size,3) uint8.

        Returns:
            (H,W,3) uint8.
        """
        height, width = picture.shape[:2]
        side = max(height, width)
        full = cv2.resize(result, (side, side), interpolation=cv2.INTER_CUBIC)
        top, left = (side - height) // 2, (side - width) // 2
        return full[top : top + height, left : left + width]

    def facts(self, given: np.ndarray, result: np.ndarray) -> dict[str, Any]:
        """Further entries of result.json about an edited image.

        Args:
            given: (H,W,3) uint8.
            result: (H,W,3) uint8.
        """
        return {}

    def losses(self, step: Denoised) -> dict[str, Tensor]:
        """Losses of the denoiser by name, each a mean over the batch's items."""
        return {"diffusion": denoising_loss(step.process, step.prediction, step.target, step.timesteps)}


def resolved(reference: Reference) -> Callable[..., Any]:
    """The function that a reference names."""
    return resolve_name(reference) if isinstance(reference, str) else reference
