"""A limit on the length of captions, so that one of megabytes costs no more than a long one."""

from __future__ import annotations

import logging

LONGEST = 10_000  # characters
log = logging.getLogger(__name__)


def shortened(captions: list[str], where: object) -> list[str]:
    """Cut each caption to its first 10,000 characters; one warning counts the longer ones.

    Args:
        captions: The captions.
        where: Their file, or another source that the warning should name.
    """
    long = [number for number, caption in enumerate(captions, 1) if len(caption) > LONGEST]
    if long:
        log.warning("%s: %d of %d captions have more than %d characters (the first is number %d): the rest is not read",
                    where, len(long), len(captions), LONGEST, long[0])  # fmt: skip
    return [caption[:LONGEST] for caption in captions]
