"""Device, number format and kernels of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ragaf_exp.core.errors import UserError

NAMES = {"no": "float32", "bf16": "bf16", "fp16": "fp16"}


def pick_device(device: str) -> torch.device:
    """Resolve a device name; auto is cuda if available, else cpu. Raises UserError for cuda without a device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("memory.device=cuda: no CUDA device is visible; take auto or cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def pick_precision(precision: str, device: torch.device) -> str:
    """Resolve a precision; auto is bf16 where the device supports it natively (emulation is slower), else no.

    For a training run on a CPU, `timed.settled` measures whether bf16 saves time.
    """
    if precision != "auto":
        return precision
    return "bf16" if has_bf16(device) else "no"


def has_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def kernels(device: torch.device, precision: str) -> AbstractContextManager:
    """Select attention kernels: on CPUs in bf16, PyTorch's fused kernel is 2 to 3 times slower than matrix products."""
    if device.type == "cpu" and precision == "bf16":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


class Compute:
    """Device and precision of a run; `with compute:` enables autocast and the choice of kernels."""

    def __init__(self, device: str = "auto", precision: str = "auto"):
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self.dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        self._open: list[ExitStack] = []  # a stack, as it may be entered again while it is open

    def __str__(self) -> str:
        """Device and number format."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return f"{device}, {NAMES[self.precision]}"

    def __enter__(self) -> Compute:
        stack = ExitStack()
        stack.enter_context(torch.autocast(self.device.type, self.dtype, enabled=self.precision != "no"))
        stack.enter_context(kernels(self.device, self.precision))
        self._open.append(stack)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.pop().__exit__(*error)
