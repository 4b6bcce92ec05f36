"""Selection of the blocks of a whole model that are compiled, sharded or checkpointed one by one."""

from __future__ import annotations

from torch import nn

from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.blocks import COMPILED
from ragaf_exp.models.control.base import Hint
from ragaf_exp.models.regions.encoder import Layer


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """List the blocks to compile or shard, in module order: of backbone and hint, and those of diffusers elsewhere."""
    own = {id(block) for module in model.modules() if isinstance(module, Backbone | Hint) for block in module.blocks()}
    return [module for module in model.modules() if id(module) in own or isinstance(module, COMPILED)]


def recomputed_blocks(model: nn.Module) -> list[nn.Module]:
    """List the blocks of this package to checkpoint; networks of diffusers checkpoint theirs."""
    own = {id(block) for module in model.modules() if isinstance(module, Backbone) for block in module.recomputed_blocks()}
    return [module for module in model.modules() if id(module) in own or isinstance(module, Layer)]
