"""The blocks of a whole model that checkpointing recomputes, and that compile and sharding take one by one."""

from __future__ import annotations

from torch import nn

from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.blocks import COMPILED
from ragaf_exp.models.regions.encoder import Layer


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """In the order of the model's modules: a backbone's own, and those of networks of diffusers in its other parts."""
    own = {id(block) for module in model.modules() if isinstance(module, Backbone) for block in module.blocks()}
    return [module for module in model.modules() if id(module) in own or isinstance(module, COMPILED)]


def recomputed_blocks(model: nn.Module) -> list[nn.Module]:
    """Blocks of this package whose activations checkpointing drops; diffusers' networks checkpoint their own."""
    own = {id(block) for module in model.modules() if isinstance(module, Backbone) for block in module.recomputed_blocks()}
    return [module for module in model.modules() if id(module) in own or isinstance(module, Layer)]
