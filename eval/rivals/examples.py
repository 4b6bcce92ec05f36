"""The rivals as functions of an example, Example -> (H,W,3) uint8, which tasks name."""

from __future__ import annotations

from functools import partial

import numpy as np

from eval.rivals.holes import FILLS, naive_paste
from eval.rivals.painting import flood_fill as flood_filled
from eval.rivals.white_balance import BALANCES
from ragaf_exp.core.types import Example
from ragaf_exp.data.cutout import cutout


def _filled(name: str, example: Example) -> np.ndarray:
    return FILLS[name](example.conditions["given"], example.conditions["hole"] > 0)


def _balanced(name: str, example: Example) -> np.ndarray:
    return BALANCES[name](example.conditions["given"])


telea, navier_stokes, biharmonic = (partial(_filled, name) for name in ("telea", "navier_stokes", "biharmonic"))
gray_world, white_patch, shades_of_gray = (
    partial(_balanced, name) for name in ("gray_world", "white_patch", "shades_of_gray")
)


def paste(example: Example) -> np.ndarray:
    """The object, cut out of its picture and fitted to the hole."""
    thing = example.conditions["object"]
    return naive_paste(example.conditions["given"], example.conditions["hole"] > 0, thing, cutout(thing))


def flood_fill(example: Example) -> np.ndarray:
    """Each region in the colour of its hints."""
    conditions = example.conditions
    return flood_filled(example.regions.labels, conditions["hints"], conditions["hinted"] > 0)


def unchanged(example: Example) -> np.ndarray:
    """The given image as it is."""
    return example.conditions["given"]
