"""A pretrained network and where its weights come from."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import nn


@dataclass(frozen=True)
class Source:
    """The origin of weights, with which they can be fetched again and identified."""

    source: str
    revision: str
    variant: str
    sha256: str  # checksum of the weight files

    def facts(self) -> dict[str, str]:
        """Return the fields as a dict."""
        return asdict(self)


class PretrainedModule(nn.Module):
    """A part of the model whose weights may come from a source; checkpoints need not contain these.

    Attributes:
        source: Origin of the weights; None if the run trained all of them.
        changed: Names of parameters that training has changed since they were loaded from the source.
    """

    source: Source | None = None
    changed: frozenset[str] = frozenset()
