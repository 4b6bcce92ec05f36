"""Frozen linear layers whose weights are stored in fewer bits (memory.base), and restored for each product.

The backward pass restores the weight again, so that no restored copy is held between the passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError

FLOAT32, BFLOAT16, FLOAT8, INT8, NF4 = "float32", "bfloat16", "float8", "int8", "nf4"
LARGEST8 = 448.0  # of float8_e4m3fn
LARGEST_INT8 = 127.0
BLOCK = 64  # values that share a scale in nf4
Restore = Callable[[Tensor, torch.dtype], Tensor]


class StoredLinear(nn.Linear):
    """A frozen linear layer.

    Args:
        layer: The layer whose weights are stored.
        base: bfloat16, float8 (e4m3) or int8 (one scale per output channel), or nf4 (bitsandbytes, one scale per 64
            values).
    """

    scale: Tensor | None

    def __init__(self, layer: nn.Linear, base: str):
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        data, scale = STORE[base](layer.weight.detach())
        self.weight = nn.Parameter(data, requires_grad=False)
        self.bias = layer.bias
        self.register_buffer("scale", scale, persistent=False)
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else x.dtype
        out = _Product.apply(x.to(dtype), self.weight, self._restored)
        return out if self.bias is None else out + self.bias.to(out.dtype)

    def plain_weight(self) -> Tensor:
        """Return the weight (out,in) in float32, on the layer's device."""
        if self.base != NF4 or self.weight.is_meta or self.scale is None:
            return self._restored(self.weight, torch.float32)
        shape = (self.out_features, self.in_features)  # the kernels for nf4 are CUDA's
        return _from_nf4(self.weight.cuda(), self.scale.cuda(), shape, torch.float32).to(self.weight.device)

    def _restored(self, data: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the weight (out,in) in a dtype."""
        return RESTORE[self.base](data, self.scale, (self.out_features, self.in_features), dtype)


class _Product(torch.autograd.Function):
    """x @ weight^T with a stored weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, data: Tensor, restore: Restore) -> Tensor:
        """Multiply.

        Args:
            ctx: Stores the weight for the backward pass.
            x: (...,in).
            data: The stored weight.
            restore: Maps it and a dtype to (out,in).

        Returns:
            (...,out).
        """
        ctx.save_for_backward(data)
        ctx.restore = restore
        return F.linear(x, restore(data, x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (data,), (grad,) = ctx.saved_tensors, grads
        return grad @ ctx.restore(data, grad.dtype), None, None


def store_linears(modules: list[nn.Module], base: str) -> None:
    """Replace the linear layers within modules by stored ones.

    Raises:
        UserError: The format is unknown or can't be used on this machine.
    """
    if base == FLOAT32:
        return
    if base not in STORE:
        raise UserError(f"memory.base={base}: must be one of {', '.join([FLOAT32, *STORE])}")
    for module in modules:
        for name, layer in list(module.named_modules()):
            if type(layer) is nn.Linear:
                parent = module.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], StoredLinear(layer, base))


def _float8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / LARGEST8  # (out,1)
    return (weight.float() / scale).to(torch.float8_e4m3fn), scale


def _int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / LARGEST_INT8  # (out,1)
    return (weight.float() / scale).round().to(torch.int8), scale


def _scaled(data: Tensor, scale: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return data.to(dtype) * scale.to(dtype)


def _nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    if weight.is_meta:  # sizes for the planner: 4 bits per value, and a float32 scale per block
        count = weight.numel()
        return weight.new_empty(-(-count // 2), 1, dtype=torch.uint8), weight.new_empty(-(-count // BLOCK))
    try:
        from bitsandbytes.functional import quantize_4bit
    except ImportError as error:
        raise UserError("memory.base=nf4: needs bitsandbytes; pip install 'ragaf_exp[adam8bit]'") from error
    if not torch.cuda.is_available():
        raise UserError("memory.base=nf4: needs a CUDA device; take memory.base=bfloat16")
    data, state = quantize_4bit(weight.float().cuda(), blocksize=BLOCK, quant_type="nf4")
    return data.cpu(), state.absmax.cpu()


def _from_nf4(data: Tensor, scale: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    if data.is_meta:
        return data.new_empty(shape, dtype=dtype)
    from bitsandbytes.functional import QuantState, dequantize_4bit, get_4bit_type

    code = get_4bit_type("nf4", device=data.device)
    state = QuantState(scale, torch.Size(shape), code=code, blocksize=BLOCK, quant_type="nf4", dtype=dtype)
    return dequantize_4bit(data, state)


STORE: dict[str, Callable[[Tensor], tuple[Tensor, Tensor | None]]] = {
    BFLOAT16: lambda weight: (weight.to(torch.bfloat16), None), FLOAT8: _float8, INT8: _int8,
    NF4: _nf4,
}  # fmt: skip
RESTORE: dict[str, Callable[..., Tensor]] = {
    BFLOAT16: lambda data, scale, shape, dtype: data.to(dtype),
    FLOAT8: _scaled,
    INT8: _scaled,
    NF4: _from_nf4,
}
