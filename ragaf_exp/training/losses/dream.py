"""DREAM: training on inputs with the network's own error (Zhou et al. 2024, arXiv 2312.00210).

In sampling, x_t carries the errors of earlier predictions; in training it does not. DREAM predicts once without gradients
and adds a share of the error to the noise, and with it to x_t and to the target of noise and v prediction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ragaf_exp.diffusion.base import Process


def rectified_noise(
    process: Process, x_0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor, prediction: Tensor, power: float
) -> Tensor:
    """Add a share of the prediction's error to the noise: noise + s^p (noise - predicted noise), s its scale in x_t.

    Args:
        process: The diffusion process, linear in x_0 and noise.
        x_0: Clean latents, (B,C,h,w).
        noise: Their noise, (B,C,h,w).
        x_t: The noised latents that the prediction is for, (B,C,h,w).
        t: Timesteps, (B,).
        prediction: Output of the network, without gradients, (B,C,h,w).
        power: p, at least 0: larger values add less where there is little noise, and keep details.

    Returns:
        The noise of the second, trained prediction, (B,C,h,w).
    """
    scale = process.add_noise(torch.zeros_like(x_0[:1]), torch.ones_like(x_0[:1]), t)  # (B,C,h,w), equal in each item
    # s (noise - predicted noise) = signal * (predicted x_0 - x_0)
    shift = process.add_noise(process.to_x0(prediction, x_t, t) - x_0, torch.zeros_like(x_0), t)
    return noise + scale**power * shift / scale.clamp(min=1e-4)
