"""Windows of image tokens and the mask of valid ones: MAT's contextual attention (Li et al. 2022, arXiv 2203.15270).

A token is valid if some of its content is known. Within a window, invalid tokens are not attended to. After the block, all
tokens of a window with at least one valid token are valid, so validity spreads from the known part of an image into its
holes. Every other block shifts its windows, which carries it across their borders.

Two details differ from MAT's network. Shifted windows do not wrap around the image; those at its border are smaller. And
queries and keys have the RMS norm with learned scales of the other transformers here, where MAT's have unit length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.core.tensors import MASK_VALUE


@dataclass(frozen=True)
class Windows:
    """A partition of a token grid into windows, padded at the border; n windows of s tokens.

    Attributes:
        size: Height and width of the grid in tokens.
        side: Height and width of a window, at most those of the grid.
        shift: Tokens by which the first window begins above and left of the grid, less than `side`.
    """

    size: tuple[int, int]
    side: tuple[int, int]
    shift: tuple[int, int]

    @classmethod
    def over(cls, size: tuple[int, int], window: int, shifted: bool) -> Windows:
        """Partition a grid. An axis that fits into one window is not shifted.

        Args:
            size: Height and width of the grid in tokens.
            window: Side of a window in tokens.
            shifted: Whether to shift the windows by half of their side.
        """
        side = min(window, size[0]), min(window, size[1])
        shift = tuple(a // 2 if shifted and length > window else 0 for a, length in zip(side, size, strict=True))
        return cls(size, side, (shift[0], shift[1]))

    @cached_property
    def _padding(self) -> tuple[int, int, int, int]:
        """Tokens left, right, above and below the grid."""
        (top, left), (a, b), (height, width) = self.shift, self.side, self.size
        return left, -(left + width) % b, top, -(top + height) % a

    def split(self, x: Tensor) -> Tensor:
        """Split tokens (B,K,L,d) into windows (B n,K,s,d); padding is zero."""
        x = F.pad(x.unflatten(2, self.size), (0, 0, *self._padding))  # (B,K,H,W,d)
        x = x.unflatten(3, (-1, self.side[1])).unflatten(2, (-1, self.side[0]))  # (B,K,rows,a,columns,b,d)
        return x.permute(0, 2, 4, 1, 3, 5, 6).flatten(4, 5).flatten(0, 2)

    def join(self, x: Tensor) -> Tensor:
        """Put windows of tokens (B n,s,C) together to the grid's tokens (B,L,C)."""
        (left, right, top, bottom), (a, b), (height, width) = self._padding, self.side, self.size
        rows, columns = (top + height + bottom) // a, (left + width + right) // b
        x = x.unflatten(1, (a, b)).unflatten(0, (-1, rows, columns))  # (B,rows,columns,a,b,C)
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B,H,W,C)
        return x[:, top : top + height, left : left + width].flatten(1, 2)

    def bias(self, valid: Tensor) -> Tensor:
        """Compute the bias that excludes invalid tokens and padding as keys.

        In a window without valid tokens it excludes padding alone: MAT's equal bias on all keys changes nothing either.

        Args:
            valid: (B,L) bool.

        Returns:
            Bias of the attention logits, (B n,1,1,s).
        """
        inside, known = self._of(torch.ones_like(valid)), self._of(valid)  # (B n,s)
        excluded = ~inside | (known.any(1, keepdim=True) & ~known)
        return torch.zeros(excluded.shape, device=valid.device).masked_fill(excluded, MASK_VALUE)[:, None, None]

    def spread(self, valid: Tensor) -> Tensor:
        """Update the mask (B,L) bool: all tokens of a window with at least one valid token become valid."""
        known = self._of(valid)
        return self.join(known.any(1, keepdim=True).expand_as(known)[..., None])[..., 0]

    def _of(self, mask: Tensor) -> Tensor:
        """Split a mask (B,L) bool into windows (B n,s)."""
        return self.split(mask[:, None, :, None])[:, 0, :, 0]


@dataclass(frozen=True)
class WindowBias:
    """The windows of one block, and the bias (B n,1,1,s) of their attention logits."""

    windows: Windows
    bias: Tensor


def contextual(valid: Tensor, window: int) -> Iterator[WindowBias]:
    """Yield the windows of each block in turn, with the mask as it is before that block.

    Args:
        valid: Valid tokens, (B,height,width) bool.
        window: Side of a window in tokens.

    Yields:
        The windows of the next block, shifted in every other one.
    """
    size, mask, shifted = (valid.shape[1], valid.shape[2]), valid.flatten(1), False
    while True:
        windows = Windows.over(size, window, shifted)
        yield WindowBias(windows, windows.bias(mask))
        mask, shifted = windows.spread(mask), not shifted
