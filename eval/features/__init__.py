"""Networks that turn pictures into features: load("inception" | "squeezenet" | "embedded")."""

from __future__ import annotations

from eval.features.base import Network
from ragaf_exp.core.errors import UserError

NAMES = ("inception", "squeezenet", "embedded")


def load(name: str, *, inception: str = "", squeezenet: str = "", resize: str = "clean", device: str = "auto") -> Network:
    """The network of that name, with its weights.

    inception, squeezenet: files of weights, "" = the library's own download. resize: clean-fid's mode, for inception.
    Unavailable where weights or a package can't be had; UserError where a named file is missing or damaged.
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
