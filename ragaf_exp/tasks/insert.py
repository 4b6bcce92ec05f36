"""Insertion: an object, given by a picture of it, is painted into the hole of a scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.randomness import generator
from ragaf_exp.core.types import Batch, Example, Item
from ragaf_exp.data.cutout import focused
from ragaf_exp.data.fit import fit_image
from ragaf_exp.diffusion.base import Process
from ragaf_exp.models.inputs import Encode, Keep, Source, present
from ragaf_exp.tasks.base import Condition, Denoised, Panel, resolved
from ragaf_exp.tasks.holes import GIVEN, HOLE, HoleTask, hidden

OBJECT = "object"
PERCEPTUAL = "perceptual"


class Insert(HoleTask):
    """Paints an object into a hole, which the network sees in one or both of two ways.

    Side by side (Light-Diffusion): the denoiser's input is x_t | the object's latent with noise of the same level, and
    next to them the hole | zeros and the scene's latent | the object's. The prediction's left half counts. The noise on
    the object is one fixed pattern for all items: its clean latent is given as well, so nothing depends on the noise,
    and sampling needs no further noise.

    As a collage (AnyDoor, Chen et al. 2024, arXiv 2307.09481): the object's picture, scaled to the hole, fills the hole
    of the given scene.

    Args:
        process: The diffusion process, for the noise on the object's latent (wiring).
        caption_dropout: Probability that a training item's caption is dropped.
        sketch_dropout: The same for its sketch, with the regions and the graph that come from it.
        side: Lay the object's latent to the right of x_t; twice the cost.
        collage: Fill the hole with the object's picture.
        focus: Enlarge the object of a picture with a plain ground to the whole picture.
        image_hint: Give scene and object to the hint encoder too, at full resolution.
        outside: Weight of latent pixels outside the hole in the loss.
        perceptual: Weight of LPIPS between the decoded estimate of x_0 and the truth, within the hole; 0 = none.
        dream: Power p of DREAM, which trains on inputs with the network's own error, at the cost of one more forward
            pass per step; 0 = off.
        lpips_net: Network of that loss: squeeze, alex or vgg.
        lpips_backbone: A file of the network's ImageNet weights; "" takes torchvision's download.
        lpips_heads: A file of LPIPS's linear weights; "" takes those of the lpips package.

    Raises:
        UserError: Neither way is chosen.
    """

    columns = {"image": "image", "mask": "image", "object": "image", "prompt": "text", "sketch": "drawing"}
    metrics = ("eval.edits:hole_metrics", "eval.insertion:object_metrics")
    rivals = {"paste": "eval.rivals.examples:paste", "telea": "eval.rivals.examples:telea"}
    shuffles = (OBJECT,)

    def __init__(
        self, process: Process, caption_dropout: limits.Share = 0.1, sketch_dropout: limits.Share = 0.5,
        side: bool = True, collage: bool = True, focus: bool = True, image_hint: bool = True,
        outside: limits.Share = 0.1, perceptual: limits.LossWeight = 0.0, dream: limits.Dream = 0.0,
        lpips_net: str = "squeeze", lpips_backbone: str = "", lpips_heads: str = "",
    ):  # fmt: skip
        super().__init__(caption_dropout, sketch_dropout, image_hint, outside)
        if not (side or collage):
            raise UserError("task.side=false: the network sees no object; set task.collage=true, or task.side=true")
        self.side, self.collage, self.focus, self.spread = side, collage, focus, 1 + side
        self.process, self.loss_weights, self.dream = process, {PERCEPTUAL: perceptual}, dream
        self._lpips = (lpips_net, lpips_backbone, lpips_heads)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Those of every task with a hole, and the object, which is never dropped."""
        return (*super().conditions, Condition(OBJECT, 0.0, maps={OBJECT: 3}))

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The scene with the hole's outline, and the object."""
        return super().panels[0], Panel(OBJECT, _object)

    def make_conditions(self, example: Example, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        """The hole, the scene without what it hides, and the object."""
        given = example.item.conditions
        if absent := {HOLE, OBJECT} - given.keys():
            raise UserError(f"data: {example.item.key} has no {', '.join(sorted(absent))}; take data=insertion, or "
                            "data=edits with a table of target_image, object_image and mask")  # fmt: skip
        hole = given[HOLE]
        thing = focused(given[OBJECT]) if self.focus else given[OBJECT]
        return {GIVEN: hidden(example.item.image, hole), HOLE: hole, OBJECT: thing}

    def request_item(self, item: Item, inputs: Mapping[str, np.ndarray]) -> Item:
        """The scene of a request, its hole and the object.

        Args:
            item: Prompt and sketch.
            inputs: `image` (H,W,3) uint8 and `mask` (H,W) float, 1 = hole, at the size that is sampled; `object`
                (h,w,3) uint8 of any size.
        """
        scene = super().request_item(item, inputs)
        thing = fit_image(inputs[OBJECT], scene.image.shape[:2], "pad")
        return replace(scene, conditions={**scene.conditions, OBJECT: thing})

    def extra(self, batch: Batch, keep: Keep, encode: Encode) -> Tensor:
        """The hole | zeros, and the latents of the scene | the object; without `side` the left half.

        Args:
            batch: The batch and its conditions.
            keep: The conditions that are dropped.
            encode: Images (B,3,H,W) in [-1,1] -> latents (B,C,h,w).

        Returns:
            (B,1+C,h,2w) or (B,1+C,h,w).
        """
        scene = super().extra(self._shown(batch, keep), keep, encode)
        if not self.side:
            return scene
        thing = encode(batch.conditions[OBJECT])
        thing = F.pad(thing, (0, 0, 0, 0, 1, 0)) * present(keep, OBJECT, thing)
        return torch.cat([scene, thing], dim=3)

    def source(self, batch: Batch, keep: Keep) -> Source:
        """The scene, as the task shows it, and its hole; with `side` the object to its right."""
        scene = super().source(self._shown(batch, keep), keep)
        if not self.side:
            return scene
        thing = batch.conditions[OBJECT] * present(keep, OBJECT, scene.image)
        return Source(torch.cat([scene.image, thing], dim=3), with_zeros(scene.hole))

    def hint_image(self, batch: Batch, keep: Keep) -> tuple[Tensor, Tensor | None]:
        """Sketch, hole and scene | zeros, zeros and object, (B,5,H,2W), or the sketch | zeros.

        Without `side` it is the left half.
        """
        scene, shown = super().hint_image(self._shown(batch, keep), keep)
        if not self.side:
            return scene, shown
        if self.hint_channels == 1:
            return with_zeros(scene), shown
        thing = batch.conditions[OBJECT] * present(keep, OBJECT, scene)
        return torch.cat([scene, F.pad(thing, (0, 0, 0, 0, 2, 0))], dim=3), shown

    def region_labels(self, batch: Batch) -> Tensor:
        """Labels (B,H,2W): the object's half has no regions; (B,H,W) without `side`."""
        return F.pad(batch.labels, (0, batch.labels.shape[2]), value=-1) if self.side else batch.labels

    def to_denoiser(self, x_t: Tensor, t: Tensor, extra: Tensor | None) -> Tensor:
        """x_t | the object's latent at the same noise level.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).
            extra: (B,1+C,h,2w), as of `extra`.

        Returns:
            (B,C,h,2w); x_t where there is nothing at its side, as in batches of another task.
        """
        if extra is None or extra.shape[3] == x_t.shape[3]:
            return x_t
        thing = extra[:, 1:, :, x_t.shape[3] :]
        noise = torch.randn(thing.shape[1:], generator=generator(0, "object")).to(thing)
        noised = self.process.add_noise(thing, noise.expand_as(thing), t.long())
        return torch.cat([x_t, noised.to(x_t.dtype)], dim=3)

    def from_denoiser(self, prediction: Tensor, x_t: Tensor) -> Tensor:
        """The left half of a prediction (B,C,h,2w), which belongs to x_t (B,C,h,w)."""
        return prediction[..., : x_t.shape[3]]

    def _shown(self, batch: Batch, keep: Keep) -> Batch:
        """The batch with the object in the hole of the given image, if the task makes a collage."""
        if not self.collage:
            return batch
        given, hole, thing = (batch.conditions[name] for name in (GIVEN, HOLE, OBJECT))
        filled = torch.where((hole * present(keep, OBJECT, hole)) > 0, into_box(thing, hole), given)
        return replace(batch, conditions={**batch.conditions, GIVEN: filled})

    @cached_property
    def loss_network(self) -> nn.Module | None:
        """LPIPS as a module, loaded when training begins; None without the perceptual loss."""
        return resolved("eval.lpips:loss_network")(*self._lpips) if self.loss_weights[PERCEPTUAL] else None

    def losses(self, step: Denoised) -> dict[str, Tensor]:
        """The denoising loss, normalised by the hole's area, and LPIPS of the decoded estimate in the hole."""
        losses = super().losses(step)
        if self.loss_network is not None:
            hole = step.batch.conditions[HOLE]
            truth = step.batch.image
            image = torch.where(hole > 0, step.decode(step.estimate).to(truth.dtype), truth)
            losses[PERCEPTUAL] = self.loss_network(image, truth).mean()
        return losses


def into_box(picture: Tensor, hole: Tensor) -> Tensor:
    """Scale and move pictures onto the bounding boxes of holes, without a change of aspect.

    Args:
        picture: (B,C,H,W), covers the longer side of the box.
        hole: (B,1,H,W), 1 = hole.

    Returns:
        (B,C,H,W); beyond the picture its border is repeated.
    """
    theta = picture.new_zeros(len(picture), 2, 3)
    spans = [_span(hole, 3 - axis) for axis in (0, 1)]  # along x, then along y
    half = torch.maximum(*(extent for _, extent in spans)).clamp(min=1e-3)
    for axis, (centre, _) in enumerate(spans):
        theta[:, axis, axis], theta[:, axis, 2] = 1 / half, -centre / half
    grid = F.affine_grid(theta, list(picture.shape), align_corners=False)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _span(hole: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Centre and half extent (B,) of holes (B,1,H,W) along an axis, of an image from -1 to 1."""
    covered = (hole > 0).any(dim=5 - axis).flatten(1)  # (B,L)
    length = covered.shape[1]
    index = torch.arange(length, device=hole.device, dtype=torch.float32)
    low = torch.where(covered, index, length).amin(1)
    high = torch.where(covered, index, -1.0).amax(1) + 1
    return (low + high) / length - 1, ((high - low) / length).clamp(min=0)


def with_zeros(image: Tensor) -> Tensor:
    """An image (B,C,H,W) with zeros to its right, (B,C,H,2W)."""
    return F.pad(image, (0, image.shape[3]))


def _object(example: Example) -> np.ndarray:
    return example.conditions[OBJECT]
