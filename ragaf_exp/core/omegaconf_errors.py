"""One-line messages for OmegaConf's errors, naming the key and the known keys."""

from __future__ import annotations

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


def one_line(error: OmegaConfBaseException, key: str = "") -> str:
    """Describe the faulty key and list the known keys, in one line."""
    full = ".".join(part for part in (key, str(error.full_key or "")) if part)
    known = _known(error)
    if known:
        return f"{full}: unknown key; known are {', '.join(known)}"
    return f"{full}: {str(error.msg or error).splitlines()[0]}"


def _known(error: OmegaConfBaseException) -> list[str]:
    """Siblings of an unknown key; empty where the key is known and its value is at fault."""
    parent = error.parent_node
    if not OmegaConf.is_dict(parent) or error.key in list(parent):
        return []
    return [str(k) for k in parent if not str(k).startswith("_")]
