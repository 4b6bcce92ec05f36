"""Emulates a CUDA device on the meta device: autocast's dtypes, fused attention, and modules that stay on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import adam
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils import checkpoint as checkpointing

from ragaf_exp.compute.device import Compute
from ragaf_exp.training import optimizer

# https://docs.pytorch.org/docs/stable/amp.html, "CUDA Ops that can autocast to float32", those that affect memory
FLOAT32 = {
    F.group_norm, torch.group_norm, F.layer_norm, torch.layer_norm, F.interpolate, F.softmax, torch.softmax,
    Tensor.softmax, F.log_softmax, torch.exp, Tensor.exp, torch.log, Tensor.log, Tensor.pow, torch.pow, Tensor.__pow__,
    torch.rsqrt, Tensor.rsqrt, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.softplus, torch.logsumexp, torch.cumsum,
}  # fmt: skip
LOWER = {  # those that autocast to the lower-precision dtype
    F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, torch.addmm,
    torch.baddbmm, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d,
}  # fmt: skip


class Attention(torch.autograd.Function):
    """The memory use of PyTorch's fused attention kernels, which store no (pixels, tokens) matrix."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Allocate the output and the statistics that the backward pass needs.

        Args:
            ctx: Stores tensors for the backward pass.
            q: Queries, (B,heads,pixels,width).
            k: Keys, (B,heads,tokens,width).
            v: Values, (B,heads,tokens,width).
            bias: (B,heads or 1,pixels,tokens), added to the logits, or None.
        """
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        largest = q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, bias, out, largest)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, _, _ = ctx.saved_tensors
        wanted = zip((q, k, v, bias), ctx.needs_input_grad, strict=True)
        return tuple(torch.empty_like(x) if x is not None and need else None for x, need in wanted)


class Kernels(TorchFunctionMode):
    """CUDA's autocast, which the meta device lacks, and its fused attention.

    Args:
        dtype: The lower-precision dtype; float32 casts nothing.
        keep: Whether each trained weight is cast once and cached.
    """

    pauses = 0  # the number of open `autocast(enabled=False)` contexts

    def __init__(self, dtype: torch.dtype, keep: bool = True):
        super().__init__()
        self.dtype, self.keep = dtype, keep
        self.cache: dict[int, Tensor] = {}  # casts of trained weights, while autocast is open

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        half = self.dtype != torch.float32 and not Kernels.pauses
        if func is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
            inputs = (given["query"], given["key"], given["value"], given.get("attn_mask"))
            return Attention.apply(*(self._lower(x) if half else x for x in inputs))
        if half and func in FLOAT32:
            args = tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args)
        if half and func in LOWER:
            args = tuple(self._lower(x) for x in args)
            kwargs = {name: self._lower(x) for name, x in kwargs.items()}
        return func(*args, **kwargs)

    def _lower(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or x.dtype != torch.float32:
            return x
        if not (self.keep and x.is_leaf and x.requires_grad):
            return x.to(self.dtype)
        if id(x) not in self.cache:
            self.cache[id(x)] = x.to(self.dtype)
        return self.cache[id(x)]


class FakeCudaCompute(Compute):
    """A CUDA device's dtypes on the meta device. precision: no, bf16 or fp16."""

    def __init__(self, precision: str):
        super().__init__("cpu", "no")
        self.device = torch.device("meta")
        self.kernels_dtype = torch.float32 if precision == "no" else torch.bfloat16  # fp16 takes the same memory

    def __enter__(self) -> Compute:
        stack = ExitStack()
        stack.enter_context(Kernels(self.kernels_dtype))
        self._open.append(stack)
        return self


class UnfusedAttentionCompute(FakeCudaCompute):
    """Attention as plain matrix products: for counting operations, not memory."""

    def __enter__(self) -> Compute:
        self._open.append(ExitStack())
        return self


class FakeAdamW8bit(torch.optim.Optimizer):
    """The state of bitsandbytes' AdamW8bit, which has no meta kernels; float32 for tensors below 4,096 values."""

    def __init__(self, groups: list[dict[str, Any]], **settings: Any):
        super().__init__(groups, settings)

    def step(self, closure: None = None) -> None:
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            if self.state[p]:  # it may be there and empty
                continue
            small = p.numel() < 4096
            kind = torch.float32 if small else torch.uint8
            moments = {f"state{i}": torch.zeros_like(p, dtype=kind, requires_grad=False) for i in (1, 2)}
            scales = {} if small else {f"absmax{i}": torch.zeros(-(-p.numel() // 256)) for i in (1, 2)}
            self.state[p] = moments | scales


@contextmanager
def meta_device() -> Iterator[None]:
    """In the block, tensors are created on the meta device, with shapes but no values, and modules stay on it."""
    to, check, autocast = nn.Module.to, adam._device_dtype_check_for_fused, torch.autocast
    adamw8bit, checkpoint = optimizer._adamw8bit, checkpointing.checkpoint
    torch.autocast = lambda kind, *args, **kwargs: (
        _autocast(**kwargs) if kind == "meta" else autocast(kind, *args, **kwargs)
    )
    optimizer._adamw8bit = FakeAdamW8bit
    checkpointing.checkpoint = partial(_recomputed, checkpoint)
    nn.Module.to = _reformatted
    adam._device_dtype_check_for_fused = lambda *args, **kwargs: None  # it rejects devices without the fused kernel
    try:
        with torch.device("meta"):
            yield
    finally:
        nn.Module.to, adam._device_dtype_check_for_fused, torch.autocast = to, check, autocast
        optimizer._adamw8bit = adamw8bit
        checkpointing.checkpoint = checkpoint


def _recomputed(checkpoint: Any, function: Any, *args: Any, **settings: Any) -> Any:
    """Checkpointing that recomputes in the same dtypes, where each block casts its weights again."""
    active = [mode for mode in _get_current_function_mode_stack() if isinstance(mode, Kernels)]
    dtype = active[-1].dtype if active else torch.float32
    return checkpoint(function, *args, **settings, context_fn=lambda: (nullcontext(), Kernels(dtype, keep=False)))


@contextmanager
def _autocast(enabled: bool = True, **settings: Any) -> Iterator[None]:
    """While a network disables autocast, `Kernels` casts nothing."""
    Kernels.pauses += not enabled
    try:
        yield
    finally:
        Kernels.pauses -= not enabled


def _reformatted(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Module.to without the change of device."""
    dtype = torch._C._nn._parse_to(*args, **kwargs)[1]
    return module if dtype is None else module._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)
