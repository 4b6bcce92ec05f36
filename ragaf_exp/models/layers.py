"""Small building blocks that several networks share."""

from __future__ import annotations

import torch
from torch import nn


def zero_module(module: nn.Module) -> nn.Module:
    """Set all parameters of a module to zero, so that its output is zero until it is trained; returns the module."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module
