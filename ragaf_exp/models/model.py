"""The whole model of a stage: encoders compute the conditioning, and the denoiser predicts from it and x_t.

A stage with regions has `ragaf` and `injection` in addition. Their outputs start at zero, so that it starts bit-identical
to a stage without.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.core.types import Batch, EditTensors
from ragaf_exp.graph.features import NODE_FEATURES
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.conditioning import Conditioning, RegionState, Text
from ragaf_exp.models.control.base import Hint
from ragaf_exp.models.inputs import ALL, BoundInputs, Inputs, Keep, Source, both
from ragaf_exp.models.layers import zero_module
from ragaf_exp.models.prompts import RegionReading, outline_map, scaled, with_prompts
from ragaf_exp.models.regions.contrast import Contrast
from ragaf_exp.models.regions.encoder import Ragaf
from ragaf_exp.models.regions.injection import Injection
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.regions.soft_masks import soft_masks

FIRST = "in"  # the injection point after the UNet's first convolution
BACKGROUND = NODE_FEATURES.index("background")


@dataclass(frozen=True)
class Prediction:
    """The outputs of a model for noised latents."""

    value: Tensor | None  # (B,C,h,w), of the diffusion's prediction type; None if only the region path ran
    region_latent: Tensor | None = None  # (B,N,region_values): predicted statistics of x_0 in each region
    fusion: Tensor | None = None  # (B,N,2) fusion weights
    contrastive_logits: tuple[Tensor, Tensor] | None = None  # regions to captions and captions to regions, each (B,B)


class Model(nn.Module):
    """The model of one stage.

    Channels next to x_t (`start`, and those of a task) go through a separate convolution. Its output is added to that of
    the backbone's first layer. This equals a first layer with more input channels, and works for any backbone.

    Args:
        text: Text encoder.
        hint: Hint encoder.
        backbone: Denoiser network.
        shapes: Injection point -> (C,h,w) at the training images' size; other sizes are traced on demand.
        timesteps: Number of timesteps of the diffusion process.
        region_values: Number of values that each region token predicts about x_0 in its region, 0 = none.
        ragaf: Region encoder; None in a stage without regions.
        injection: Injection of region tokens; None in a stage without regions.
        contrast: Whether to compare regions and captions across the batch.
        start_channels: Channels of the latent that the stage starts from if it takes that as an input, else 0.
        inputs: A task's inputs besides caption and sketch.
        downscale: Image pixels per latent pixel.
        crop_input: Whether the margins cropped from the images are an input. Their embedding is added after the first
            layer at every pixel.
    """

    def __init__(
        self, text: TextEncoder, hint: Hint, backbone: Backbone, shapes: dict[str, Shape], timesteps: int,
        region_values: int = 0, ragaf: Ragaf | None = None, injection: Injection | None = None, contrast: bool = False,
        start_channels: int = 0, inputs: BoundInputs | None = None, *, downscale: int, crop_input: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.text, self.hint, self.backbone = text, hint, backbone
        self.sizes = {p: s[1:] for p, s in shapes.items()}  # resolutions at which soft masks are needed
        self.other_sizes: dict[tuple[int, int], dict[str, tuple[int, int]]] = {}  # by latent size (h,w)
        self.downscale = downscale
        self.timesteps = timesteps
        self.ragaf, self.injection = ragaf, injection
        self.region_latent = nn.Linear(ragaf.width, region_values) if ragaf is not None and region_values else None
        self.contrast = Contrast(ragaf.width, text.width) if ragaf is not None and contrast else None
        self.coarse_in = None
        if start_channels:
            self.coarse_in = zero_module(nn.Conv2d(start_channels, shapes[FIRST][0], 3, padding=1, bias=False))
        self.bound = inputs
        self.inputs = Inputs() if inputs is None else inputs.inputs
        self.extra_in, self.task_tokens = self._task_modules(inputs, shapes)
        self.crop_in = zero_module(nn.Linear(4, shapes[FIRST][0], bias=False)) if crop_input else None

    def forward(
        self, batch: Batch, x_t: Tensor | None, t: Tensor, keep: Keep = ALL, start: Tensor | None = None
    ) -> tuple[Prediction, Conditioning]:
        """Run the forward pass of one training step.

        Args:
            batch: The batch and its conditions.
            x_t: Noised latents, (B,C,h,w); None runs the region path alone, at a small fraction of the cost.
            t: Timesteps, (B,).
            keep: The conditions that are dropped.
            start: The latent that the stage starts from, (B,C,h,w).

        Returns:
            The prediction, and the conditioning that it was computed from.
        """
        conditioning = replace(self.condition(batch, keep, x_t is not None), start=start)
        if x_t is None:
            ragaf, _ = self._region_path()
            tokens, fusion = ragaf.fuse(conditioning.region_state, t / self.timesteps)
            prediction = Prediction(None, self._region_prediction(tokens), fusion)
        else:
            prediction = self.denoise(x_t, t, conditioning)
        if self.contrast is not None:
            prediction = replace(prediction, contrastive_logits=self.contrast(conditioning.region_state, conditioning.text))
        return prediction, conditioning

    def condition(self, batch: Batch, keep: Keep = ALL, denoises: bool = True) -> Conditioning:
        """Encode the conditions that do not depend on the timestep: once per image when sampling.

        Args:
            batch: The conditions.
            keep: Those that are dropped.
            denoises: Whether the denoiser will run; without it, hint residuals and the task's channels are left out.
        """
        keep = both(keep, batch.present)
        known, keep_text = batch.text, keep.get("text")
        source = self._source(batch, keep)
        text = known.dropped(keep_text, batch.no_text) if known is not None else self._read(batch, keep_text, source)
        image, keep_hint = self.inputs.hint_image(batch, keep)
        everything = torch.ones(len(batch), dtype=torch.bool, device=batch.sketch.device)
        features = self.hint.features(image)
        regions = None
        if self.ragaf is not None:
            keep_sketch = keep.get("sketch", everything)
            reading = self._reading(batch, text, keep_text)
            regions = self._regions(self.ragaf, batch, reading, features, keep_sketch)
            if batch.edits is not None:
                regions = self._edited(regions, batch, batch.edits, features, keep_sketch, text, source)
            regions = replace(regions, phrase_tokens=self._phrase_tokens(batch, text))
        hint = self.hint(features, everything if keep_hint is None else keep_hint) if denoises else {}
        extra = self.bound.extra(batch, keep) if self.bound is not None and denoises else None
        shown = self._encode_source(source) if denoises else None
        token = None if self.task_tokens is None or batch.task is None else self.task_tokens(batch.task)[:, None]
        crops, outline = None if self.crop_in is None else batch.crops, _outline(batch)
        return Conditioning(
            text, hint, regions, crops=crops, extra=extra, source=shown, task_token=token, outline=outline
        )

    def with_start(self, c: Conditioning, start: Tensor | None) -> Conditioning:
        """Add the latent (B,C,h,w) that the stage starts from to the conditioning, if it takes that as an input."""
        return c if self.coarse_in is None else replace(c, start=start)

    def denoise(self, x_t: Tensor, t: Tensor, c: Conditioning) -> Prediction:
        """Predict the diffusion target from noised latents.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).
            c: The conditioning.
        """
        text, x = c.denoiser_text, self._denoiser_input(x_t, t, c)
        hint = scaled(self.hint.at(c.hint, self.backbone.inputs(x), t, text), c.outline)
        hint = self._with_start(c, self._with_extra(c, self._with_crops(c, hint)))
        valid = {"valid": self.inputs.valid(x_t, c.extra)} if self.backbone.takes_valid else {}
        if c.regions is None:
            return Prediction(self.inputs.from_denoiser(self.backbone(x, t, text, hint, **valid), x_t))
        ragaf, injection = self._region_path()
        tokens, fusion = ragaf.fuse(c.regions, t / self.timesteps)  # (B,N,R), (B,N,2)
        injected = injection(tokens, c.regions, hint)
        words = injection.words(c.regions)
        if words is not None and c.task_token is not None:
            words = words.padded(c.task_token.shape[1])
        text = replace(text, appended=injection.appended(tokens, c.regions))
        value = self.backbone(x, t, text, injected.residuals, words, injected.modulations, **valid)
        return Prediction(self.inputs.from_denoiser(value, x_t), self._region_prediction(tokens), fusion)

    def _denoiser_input(self, x_t: Tensor, t: Tensor, c: Conditioning) -> Tensor:
        """Lay out x_t (B,C,h,w) as the task requires, and concatenate the task's channels if the backbone takes them."""
        x = self.inputs.to_denoiser(x_t, t, c.extra)
        if c.extra is not None and self.extra_in is None and self.inputs.extra_channels(x_t.shape[1]):
            x = torch.cat([x, c.extra.to(x.dtype)], dim=1)
        return x if c.source is None else torch.cat([x, c.source.to(x.dtype)], dim=1)

    def _source(self, batch: Batch, keep: Keep) -> Source | None:
        """Return the image that the task edits, if a network reads it."""
        if self.bound is None or not (self.backbone.reads_source or self.text.reads_image):
            return None
        return self.bound.source(batch, keep)

    def _read(self, batch: Batch, keep: Tensor | None, source: Source | None) -> Text:
        """Encode the captions, and the edited images if the text encoder reads them."""
        return self.text.read(batch.captions, keep, None if source is None else source.image)

    def _encode_source(self, source: Source | None) -> Tensor | None:
        """Encode the edited image as the backbone was pretrained to see it."""
        if source is None or self.bound is None:
            return None
        return self.backbone.encode_source(source.image, source.hole, self.bound.encode)

    def _with_extra(self, c: Conditioning, hint: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the embedded channels of the task to the hint's residual at the first layer."""
        if self.extra_in is None or c.extra is None:
            return hint
        added = self.extra_in(c.extra)
        return hint | {FIRST: hint[FIRST] + added if FIRST in hint else added}

    def _task_modules(
        self, bound: BoundInputs | None, shapes: dict[str, Shape]
    ) -> tuple[nn.Module | None, nn.Embedding | None]:
        """Build the layer for the task's channels, if the backbone does not take them itself, and the task tokens."""
        if bound is None:
            return None, None
        count = self.inputs.extra_channels(bound.codec.channels)
        layer = None
        if count and count != self.backbone.extra_channels:
            patch = bound.side // shapes[FIRST][1]  # latent pixels per cell of the first features
            convolution = nn.Conv2d(count * patch**2, shapes[FIRST][0], 3, padding=1, bias=False)
            if self.backbone.pretrained:  # the pretrained backbone must start unchanged
                zero_module(convolution)
            layer = nn.Sequential(nn.PixelUnshuffle(patch), convolution)
        tokens = self.inputs.tokens
        return layer, nn.Embedding(tokens, self.text.width) if tokens else None

    def _phrase_tokens(self, batch: Batch, text: Text) -> Tensor | None:
        """Return (B,N,T) bool: the tokens that lie within each region's span of the caption."""
        if batch.spans is None:
            return None
        rows = [self.text.token_spans(caption) for caption in batch.captions]
        offsets = torch.tensor([row + [(0, 0)] * (text.mask.shape[1] - len(row)) for row in rows])
        first, end = offsets.to(text.mask.device, non_blocking=True)[:, None].unbind(-1)  # (B,1,T)
        low, high = batch.spans[:, :, None].unbind(-1)  # (B,N,1)
        return (first >= low) & (end <= high) & (end > first) & text.mask[:, None]

    def _with_crops(self, c: Conditioning, hint: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the embedding of the images' crops to the hint's residual at the first layer; uncropped images add zero."""
        if self.crop_in is None or c.crops is None:
            return hint
        cut = self.crop_in(c.crops)[..., None, None]  # (B,C,1,1)
        return hint | {FIRST: hint[FIRST] + cut if FIRST in hint else cut}

    def _with_start(self, c: Conditioning, hint: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the embedding of the latent that the stage starts from to the hint's residual at the first layer."""
        if self.coarse_in is None or c.start is None:
            return hint
        added = self.coarse_in(c.start)
        if FIRST in hint:  # which may be wider, where the task lays out more than x_t
            added = F.pad(added, (0, hint[FIRST].shape[3] - added.shape[3]))
        return hint | {FIRST: hint[FIRST] + added if FIRST in hint else added}

    def _region_prediction(self, tokens: Tensor) -> Tensor | None:
        return None if self.region_latent is None else self.region_latent(tokens)

    def _region_path(self) -> tuple[Ragaf, Injection]:
        assert self.ragaf is not None and self.injection is not None, "of a stage with regions"
        return self.ragaf, self.injection

    def _reading(self, batch: Batch, text: Text, keep_text: Tensor | None) -> RegionReading:
        """Return the text that regions attend to: the caption, and their prompts if there are any."""
        if batch.edits is None:
            return RegionReading(text)
        return with_prompts(self.text, text, batch.edits.prompts, keep_text)

    def _edited(
        self, state: RegionState, batch: Batch, edits: EditTensors, features: dict, keep_sketch: Tensor, text: Text,
        source: Source | None,
    ) -> RegionState:  # fmt: skip
        """Add the regions' importance and periods to the state, and limit the attention map to the caption."""
        state = replace(state, region_text=state.region_text[..., : text.mask.shape[1]])
        if edits.importance is None and edits.period is None:
            return state
        nothing = self._read(batch, torch.zeros(len(batch), dtype=torch.bool, device=text.mask.device), source)
        silent = self._regions(self._region_path()[0], batch, RegionReading(nothing), features, keep_sketch).semantics
        return replace(state, importance=edits.importance, period=edits.period, silent=silent)

    def _regions(
        self, ragaf: Ragaf, batch: Batch, reading: RegionReading, features: dict, keep_sketch: Tensor
    ) -> RegionState:
        labels = self.inputs.region_labels(batch)
        latent, narrow = self._latent_size(labels), self._latent_size(batch.labels)
        sizes, levels = self._sizes_at(latent), self.hint.resolutions(*latent)[: len(ragaf.levels)]
        masks = {size: soft_masks(labels, batch.nodes.shape[1], size) for size in {*sizes.values(), *levels}}
        if narrow != latent:  # for the losses, which compare regions with x_0
            masks[narrow] = soft_masks(batch.labels, batch.nodes.shape[1], narrow)
        has_sketch = keep_sketch[:, None]  # (B,1)
        masks = {size: m * has_sketch[..., None, None] for size, m in masks.items()}
        hint = [features[size] * has_sketch[..., None, None] for size in levels]
        edge_mask = batch.edge_mask & has_sketch[..., None]
        nodes, text, readable = batch.node_mask & has_sketch, reading.text, reading.readable
        state = ragaf(batch.nodes, nodes, batch.edges, edge_mask, masks, hint, text, readable)
        state = replace(state, background=batch.nodes[..., BACKGROUND])
        return state if sizes is self.sizes else replace(state, sizes=sizes)

    @property
    def needs_spans(self) -> bool:
        """Whether batches need the regions' spans of the caption, which only annotated items have."""
        return self.injection is not None and self.injection.needs_spans

    @property
    def token_side(self) -> int:
        """Side of an image token in pixels; of a UNet, of a cell of its lowest resolution."""
        return self.downscale * self.backbone.stride

    def _latent_size(self, labels: Tensor) -> tuple[int, int]:
        """Return (h,w) of the latents of images with these labels (B,H,W)."""
        return labels.shape[1] // self.downscale, labels.shape[2] // self.downscale

    def _sizes_at(self, latent: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """Return (h,w) of every injection point for latents of this size."""
        if latent == self.sizes[FIRST]:
            return self.sizes
        if latent not in self.other_sizes:
            self.other_sizes[latent] = {p: shape[1:] for p, shape in self.backbone.shapes(*latent).items()}
        return self.other_sizes[latent]


def _outline(batch: Batch) -> Tensor | None:
    """Return the factor of the sketch at each pixel, (B,1,H,W), if an edit changes it."""
    if batch.edits is None or batch.edits.outline is None:
        return None
    size = (batch.labels.shape[1], batch.labels.shape[2])
    return outline_map(batch.edits.outline, soft_masks(batch.labels, batch.nodes.shape[1], size))
