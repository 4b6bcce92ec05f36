"""Small building blocks that several networks share."""

from __future__ import annotations

import torch
from torch import nn


def zero_module(module: nn.Module) -> nn.Module:
    """The module with all parameters at zero: it adds nothing until it is trained."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module
