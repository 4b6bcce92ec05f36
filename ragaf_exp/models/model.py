"""The whole model of a stage: encoders to conditioning, conditioning and x_t to a prediction.

Stage 2 is stage 1 plus `ragaf` and `injection`; their outputs start at zero, and it then equals stage 1 to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ragaf_exp.core.types import Batch, EditTensors
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.conditioning import Conditioning, RegionState, Text
from ragaf_exp.models.control.base import Hint
from ragaf_exp.models.layers import zero_module
from ragaf_exp.models.prompts import RegionReading, outline_map, scaled, with_prompts
from ragaf_exp.models.regions.contrast import Contrast
from ragaf_exp.models.regions.encoder import Ragaf
from ragaf_exp.models.regions.injection import Injection
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.regions.soft_masks import soft_masks

FIRST = "in"  # the injection point after the UNet's first convolution


@dataclass(frozen=True)
class Prediction:
    """What the denoiser says of a noised latent."""

    value: Tensor | None  # (B,C,h,w), of the diffusion's prediction type; None where only the regions were asked
    region_latent: Tensor | None = None  # (B,N,region_values): what each region's token says of x0 there
    fusion: Tensor | None = None  # (B,N,2)
    contrastive_logits: tuple[Tensor, Tensor] | None = None  # of regions to captions and back, each (B,B)


class Model(nn.Module):
    """text, hint, backbone: the parts of stage 1. ragaf, injection: of stage 2, else None.

    shapes: injection point -> (C,h,w). timesteps: of the diffusion. region_values: how many values each region token
    says of x0 in its region. contrast: compare regions and captions over the batch. coarse_channels: of stage 1's
    latent, where stage 2 sees it: a convolution added to the UNet's first is one over more input channels.
    """

    def __init__(
        self, text: TextEncoder, hint: Hint, backbone: Backbone, shapes: dict[str, Shape], timesteps: int,
        region_values: int = 0, ragaf: Ragaf | None = None, injection: Injection | None = None, contrast: bool = False,
        coarse_channels: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.text, self.hint, self.backbone = text, hint, backbone
        self.sizes = {s[1:] for s in shapes.values()}  # resolutions at which soft masks are needed
        self.timesteps = timesteps
        self.ragaf, self.injection = ragaf, injection
        self.region_latent = nn.Linear(ragaf.width, region_values) if ragaf is not None and region_values else None
        self.contrast = Contrast(ragaf.width, text.width) if ragaf is not None and contrast else None
        self.coarse_in = None
        if coarse_channels:
            self.coarse_in = zero_module(nn.Conv2d(coarse_channels, shapes[FIRST][0], 3, padding=1, bias=False))

    def forward(
        self, batch: Batch, x_t: Tensor | None, t: Tensor, keep_text: Tensor | None = None,
        keep_sketch: Tensor | None = None, coarse: Tensor | None = None,
    ) -> tuple[Prediction, Conditioning]:  # fmt: skip
        """One training step's forward: x_t (B,C,h,w), t (B,), keep_* (B,) bool, False drops that condition.

        x_t None asks the region path alone, at a small part of the cost. coarse (B,C,h,w): stage 1's latent.
        """
        conditioning = replace(self.condition(batch, keep_text, keep_sketch, x_t is not None), coarse=coarse)
        if x_t is None:
            ragaf, _ = self._region_path()
            tokens, fusion = ragaf.fuse(conditioning.region_state, t / self.timesteps)
            prediction = Prediction(None, self._region_prediction(tokens), fusion)
        else:
            prediction = self.denoise(x_t, t, conditioning)
        if self.contrast is not None:
            prediction = replace(prediction, contrastive_logits=self.contrast(conditioning.region_state, conditioning.text))
        return prediction, conditioning

    def condition(
        self, batch: Batch, keep_text: Tensor | None = None, keep_sketch: Tensor | None = None, denoises: bool = True
    ) -> Conditioning:
        """Encode what does not depend on the timestep: once per image when sampling. denoises: else without the hint."""
        if keep_sketch is None:
            keep_sketch = torch.ones(len(batch), dtype=torch.bool, device=batch.sketch.device)
        known = batch.text
        text = self.text(batch.captions, keep_text) if known is None else known.dropped(keep_text, batch.no_text)
        features = self.hint.features(batch.sketch)
        regions = None
        if self.ragaf is not None:
            reading = self._reading(batch, text, keep_text)
            regions = self._regions(self.ragaf, batch, reading, features, keep_sketch)
            if batch.edits is not None:
                regions = self._edited(regions, batch, batch.edits, features, keep_sketch, text)
        hint = self.hint(features, keep_sketch) if denoises else {}
        return Conditioning(text, hint, regions, phrase_tokens=self._phrase_tokens(batch, text), outline=_outline(batch))

    def with_coarse(self, c: Conditioning, coarse: Tensor | None) -> Conditioning:
        """The conditioning with stage 1's latent (B,C,h,w), where this stage takes it as an input."""
        return c if self.coarse_in is None else replace(c, coarse=coarse)

    def denoise(self, x_t: Tensor, t: Tensor, c: Conditioning) -> Prediction:
        """x_t (B,C,h,w), t (B,) timesteps -> prediction."""
        hint = scaled(self.hint.at(c.hint, self.backbone.inputs(x_t), t, c.text), c.outline)
        if c.regions is None:
            return Prediction(self.backbone(x_t, t, c.text, hint))
        ragaf, injection = self._region_path()
        tokens, fusion = ragaf.fuse(c.regions, t / self.timesteps)  # (B,N,R), (B,N,2)
        injected = injection(tokens, c.regions, self._with_coarse(c, hint))
        words = injection.words(c.regions)
        value = self.backbone(x_t, t, c.text, injected.residuals, words, injected.modulations)
        return Prediction(value, self._region_prediction(tokens), fusion)

    def _phrase_tokens(self, batch: Batch, text: Text) -> Tensor | None:
        """(B,N,T) bool: the tokens that lie within each region's span of the caption."""
        if batch.spans is None:
            return None
        found = [self.text.token_spans(caption) for caption in batch.captions]
        offsets = torch.tensor([row + [(0, 0)] * (text.mask.shape[1] - len(row)) for row in found])
        first, end = offsets.to(text.mask.device, non_blocking=True)[:, None].unbind(-1)  # (B,1,T)
        low, high = batch.spans[:, :, None].unbind(-1)  # (B,N,1)
        return (first >= low) & (end <= high) & (end > first) & text.mask[:, None]

    def _with_coarse(self, c: Conditioning, hint: dict[str, Tensor]) -> dict[str, Tensor]:
        """The hint's residuals, and at the first layer what stage 2 sees of stage 1's latent."""
        if self.coarse_in is None or c.coarse is None:
            return hint
        seen = self.coarse_in(c.coarse)
        return hint | {FIRST: hint[FIRST] + seen if FIRST in hint else seen}

    def _region_prediction(self, tokens: Tensor) -> Tensor | None:
        return None if self.region_latent is None else self.region_latent(tokens)

    def _region_path(self) -> tuple[Ragaf, Injection]:
        assert self.ragaf is not None and self.injection is not None, "only stage 2 has a region path"
        return self.ragaf, self.injection

    def _reading(self, batch: Batch, text: Text, keep_text: Tensor | None) -> RegionReading:
        """What regions read: the caption, and their prompts where there are any."""
        if batch.edits is None:
            return RegionReading(text)
        return with_prompts(self.text, text, batch.edits.prompts, keep_text)

    def _edited(
        self, state: RegionState, batch: Batch, edits: EditTensors, features: dict, keep_sketch: Tensor, text: Text
    ) -> RegionState:
        """The state with the regions' importance, and with attention to the caption alone."""
        state = replace(state, region_text=state.region_text[..., : text.mask.shape[1]])
        if edits.importance is None:
            return state
        nothing = self.text(batch.captions, torch.zeros(len(batch), dtype=torch.bool, device=text.mask.device))
        silent = self._regions(self._region_path()[0], batch, RegionReading(nothing), features, keep_sketch).semantics
        return replace(state, importance=edits.importance, silent=silent)

    def _regions(
        self, ragaf: Ragaf, batch: Batch, reading: RegionReading, features: dict, keep_sketch: Tensor
    ) -> RegionState:
        masks = {size: soft_masks(batch.labels, batch.nodes.shape[1], size) for size in self.sizes}
        kept = keep_sketch[:, None]
        masks = {size: m * kept[..., None, None] for size, m in masks.items()}
        hint = [features[size] * kept[..., None, None] for size in ragaf.levels]
        edge_mask = batch.edge_mask & kept[..., None]
        nodes = batch.node_mask & kept
        return ragaf(batch.nodes, nodes, batch.edges, edge_mask, masks, hint, reading.text, reading.readable)


def _outline(batch: Batch) -> Tensor | None:
    """(B,1,H,W): the factor of the sketch at each pixel, where an edit changes it."""
    if batch.edits is None or batch.edits.outline is None:
        return None
    size = (batch.labels.shape[1], batch.labels.shape[2])
    return outline_map(batch.edits.outline, soft_masks(batch.labels, batch.nodes.shape[1], size))
