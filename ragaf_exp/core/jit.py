"""Loops over pixels, compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable

from numba import njit

log = logging.getLogger(__name__)


def compiled(function: Callable) -> Callable:
    """numba's njit, with the machine code kept on disk: the first process compiles for some seconds, others load it.

    It is kept beside the module, or where that can't be written in the user's cache folder, or in $NUMBA_CACHE_DIR.
    """
    try:
        return njit(cache=True)(function)
    except RuntimeError as error:  # nowhere to keep it: a read-only installation and no home folder
        log.warning("%s is compiled anew by every process (%s); set NUMBA_CACHE_DIR", function.__name__, error)
        return njit(function)
