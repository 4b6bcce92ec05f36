"""Names of the blocks that checkpointing recomputes and that torch.compile compiles."""

from __future__ import annotations

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D

from ragaf_exp.models.backbones.unet import PixelHead
from ragaf_exp.models.regions.encoder import Layer

RECOMPUTED = (Layer, PixelHead)  # of this package; diffusers' models know their own


COMPILED = (ResnetBlock2D, BasicTransformerBlock)  # the same code again and again: compiled once, in seconds
