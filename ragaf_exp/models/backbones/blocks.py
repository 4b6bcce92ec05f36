"""Kinds of blocks that torch.compile compiles and sharding splits one by one."""

from __future__ import annotations

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D

COMPILED = (ResnetBlock2D, BasicTransformerBlock)  # the same code again and again: compiled once, in seconds
