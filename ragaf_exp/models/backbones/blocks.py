"""Block classes of diffusers that are compiled and sharded one by one."""

from __future__ import annotations

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D

COMPILED = (ResnetBlock2D, BasicTransformerBlock)  # all instances share their code, which is compiled once, in seconds
