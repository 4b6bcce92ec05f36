"""torch.optim.Muon with matrices of equal shape batched.

Updating a hundred small matrices one by one takes as long as a fifth of a training step; batched, 0.6 times that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

STACK = 2**22  # most values in a batch, so that large matrices need no more memory than on their own


class Muon(torch.optim.Muon):
    """Orthogonalised momentum (Jordan et al. 2024), with steps as large as AdamW's (Liu et al. 2025, arXiv 2502.16982)."""

    def __init__(self, groups: list[dict[str, Any]]):
        super().__init__(groups, nesterov=True, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # closures are not supported
        for group in self.param_groups:
            matrices: list[Tensor] = []
            gradients: list[Tensor] = []
            means: list[Tensor] = []
            self._init_group(group, matrices, gradients, means)
            if not matrices:
                continue
            torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
            nesterov = torch._foreach_lerp(gradients, means, group["momentum"])
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            for indices in alike(matrices):
                updates = orthogonal(torch.stack([nesterov[i] for i in indices]), group)
                changed = [matrices[i] for i in indices]
                rate = group["lr"] * 0.2 * math.sqrt(max(updates.shape[1:]))
                torch._foreach_add_(changed, list(updates.to(changed[0].dtype).unbind()), alpha=-rate)


def alike(matrices: list[Tensor]) -> Iterator[list[int]]:
    """Yield indices of matrices of equal shape, with at most STACK values in total."""
    by_shape = defaultdict(list)
    for index, matrix in enumerate(matrices):
        by_shape[matrix.shape].append(index)
    for shape, indices in by_shape.items():
        count = max(1, STACK // shape.numel())
        yield from (indices[i : i + count] for i in range(0, len(indices), count))


def orthogonal(stack: Tensor, group: dict[str, Any]) -> Tensor:
    """Orthogonalise (K,m,n) in bfloat16 by Newton-Schulz iterations, to singular values of about 1."""
    a, b, c = group["ns_coefficients"]
    x, tall = stack.bfloat16(), stack.shape[1] > stack.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
