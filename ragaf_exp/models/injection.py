"""Injection (config group `injection`): region tokens into the UNet, through zero-initialised gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ragaf_exp.errors import UserError
from ragaf_exp.models.attention import WordBias
from ragaf_exp.models.conditioning import RegionState
from ragaf_exp.models.hint import zero
from ragaf_exp.models.taps import OUT, Shape

FLOOR = 1e-3  # of p(token | pixel): bounds the bias, and lets a wrong region map be unlearnt


class Injection(nn.Module):
    """Adds each region's token to the pixels of its soft mask, and biases image-to-text attention.

    shapes: injection point -> (C,h,w), traced; width: R; cross_layers: of the UNet (all wiring).
    points: "all", or the prefixes of those to use, as [mid] or [down, mid]. words: bias image-to-text attention.
    """

    def __init__(
        self, shapes: dict[str, Shape], width: int, cross_layers: int,
        points: list[str] = ("in", "down", "mid", "up", "out"), words: bool = True,
    ):  # fmt: skip
        super().__init__()
        known = sorted({p.split(".")[0] for p in shapes})
        unknown = [p for p in points if p not in known]
        if unknown:
            raise UserError(f"injection.points={list(points)}: unknown {unknown}; known are {known}")
        self.shapes = {p: s for p, s in shapes.items() if p.split(".")[0] in points}
        self.out = nn.ModuleDict(
            {p.replace(".", "_"): zero(nn.Linear(width, s[0])) for p, s in self.shapes.items()}
        )
        self.attended = {s[1:] for p, s in shapes.items() if p != OUT}  # resolutions of the UNet
        self.gates = nn.Parameter(torch.zeros(cross_layers)) if words else None

    def forward(self, tokens: Tensor, state: RegionState) -> dict[str, Tensor]:
        """tokens (B,N,R) -> injection point -> (B,C,h,w)."""
        return {p: self._spread(p, tokens, state.soft_masks[s[1:]]) for p, s in self.shapes.items()}

    def words(self, state: RegionState) -> WordBias | None:
        """log p(token | pixel), relative to the pixel's likeliest token; a pixel that no word speaks of has no bias."""
        if self.gates is None:
            return None
        maps = {h * w: self._log_map(state.soft_masks[h, w], state) for h, w in self.attended}
        return WordBias(maps, self.gates)

    def _spread(self, point: str, tokens: Tensor, masks: Tensor) -> Tensor:
        values = self.out[point.replace(".", "_")](tokens)  # (B,N,C)
        return (values.transpose(1, 2) @ masks.flatten(2).to(values.dtype)).unflatten(2, masks.shape[2:])

    def _log_map(self, masks: Tensor, state: RegionState) -> Tensor:
        p = masks.flatten(2).transpose(1, 2).float() @ state.region_text.float()  # (B,hw,T)
        log_map = (p + FLOOR).log()
        return log_map - log_map.amax(-1, keepdim=True)
