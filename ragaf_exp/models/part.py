"""A pretrained network and where its weights come from."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import nn


@dataclass(frozen=True)
class Source:
    """Where weights came from: enough to fetch the same ones again, and to know them."""

    source: str
    revision: str
    variant: str
    sha256: str  # of the weight files

    def facts(self) -> dict[str, str]:
        return asdict(self)


class PretrainedModule(nn.Module):
    """A part of the model whose weights may come from elsewhere; those need not be in checkpoints.

    source: None where all weights are the run's own. changed: names of parameters that are not the source's any more.
    """

    source: Source | None = None
    changed: frozenset[str] = frozenset()
