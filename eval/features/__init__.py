"""Networks that turn pictures into features: load("inception" | "squeezenet" | "embedded")."""

from __future__ import annotations

from eval.features.base import Network
from ragaf_exp.core.errors import UserError

NAMES = ("inception", "squeezenet", "embedded")


def load(name: str, *, inception: str = "", squeezenet: str = "", resize: str = "clean", device: str = "auto") -> Network:
    """Load a feature network with its weights.

    Args:
        name: inception, squeezenet or embedded.
        inception: Inception's weights file; "" for clean-fid's download.
        squeezenet: SqueezeNet's weights file; "" for torchvision's download.
        resize: clean-fid's resizing mode, for inception.
        device: auto, cpu or cuda.

    Raises:
        Unavailable: If a package is not installed or weights can't be downloaded.
        UserError: If a named file is missing or damaged.
    """
    if name == "inception":
        from eval.features.inception import Inception

        return Inception(inception, resize, device)
    if name == "squeezenet":
        from eval.features.squeezenet import SqueezeNet

        return SqueezeNet(squeezenet, device)
    if name == "embedded":
        from eval.features.embedded import Embedded

        return Embedded(device)
    raise UserError(f"eval: no feature network {name!r}; known are {', '.join(NAMES)}")
