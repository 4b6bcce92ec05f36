"""Whether the Hugging Face hub can be reached: one probe for a process, so that offline only the first file waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

PROBE_S = 5.0  # seconds after which a hub that does not answer counts as out of reach


@lru_cache
def reachable() -> bool:
    """Whether the hub answers at all. Without a network its client would try each file for tens of seconds."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_S)
    except Exception:  # requests and httpx, one of which it uses, share no class of errors
        return False
    return True


@contextmanager
def at_hand() -> Iterator[None]:
    """In here the hub's client looks in its local cache alone where the hub can't be reached."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
