"""One probe per process of whether the Hugging Face hub can be reached, so that offline only the first file waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

PROBE_S = 5.0  # seconds after which a hub that does not answer counts as unreachable


@lru_cache
def reachable() -> bool:
    """Whether the hub answers. Without a network its client would retry each file for tens of seconds."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_S)
    except Exception:  # requests and httpx, one of which it uses, share no class of errors
        return False
    return True


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Limit the hub's client to its local cache where the hub can't be reached."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
