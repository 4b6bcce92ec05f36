"""Compilation of loops over pixels by numba."""

from __future__ import annotations

import logging
from collections.abc import Callable

from numba import njit

log = logging.getLogger(__name__)


def compiled(function: Callable) -> Callable:
    """Apply numba's njit with machine code cached on disk: the first process compiles for some seconds, others load it.

    The code is stored in $NUMBA_CACHE_DIR if set, else next to the module, else in the user's cache folder.
    """
    try:
        return njit(cache=True)(function)
    except RuntimeError as error:  # no folder to write to: a read-only installation and no home folder
        log.warning("%s is compiled again by every process (%s); set NUMBA_CACHE_DIR", function.__name__, error)
        return njit(function)
