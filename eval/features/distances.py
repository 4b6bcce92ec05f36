"""Entries of metrics.json for the distance of an image set to a reference, from one network's features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eval.checks import small_sample_warning
from eval.features.base import Network
from eval.features.cached import features_of
from eval.images import ImageSet
from eval.metrics.distances import Estimate, kid
from eval.metrics.influence import FEWEST, frechet_interval
from eval.registry import higher_is_better
from ragaf_exp.core.errors import UserError


def distance_figures(
    images: ImageSet, reference: ImageSet, network: Network, cache_folder: str | Path | None, *,
    kid_subsets: int = 100, kid_subset_size: int = 1000, seed: int = 0, **measured_with: Any,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """`fid` and `kid` for Inception, `fd_<network>` for another network.

    Each entry records the counts, the network, its weights' checksum and the resizing. A Frechet distance of few images
    has a `warning`.

    Args:
        images: The set to be scored.
        reference: The set that it is compared with.
        network: The feature network.
        cache_folder: Folder of the feature cache; None for none.
        kid_subsets: Number of random subsets of KID.
        kid_subset_size: Images in each of them, at most half the smaller set.
        seed: Of the subsets.
        **measured_with: Further facts to record with the figures.

    Raises:
        UserError: If either set has fewer than 4 images.
    """
    for one in (images, reference):
        if len(one) < FEWEST:
            raise UserError(f"{one.name}: {len(one)} images; a distance between sets needs at least {FEWEST} in either")
    first, second = (features_of(one, network, cache_folder) for one in (images, reference))
    facts = (
        network.facts()
        | {"n_reference": len(second), "reference": reference.name, "reference_checksum": reference.checksum}
        | measured_with
    )
    name = "fid" if network.name == "inception" else f"fd_{network.name}"
    entries = {name: _entry(name, frechet_interval(first, second), first, facts | {"interval": "influence function"})}
    if warning := small_sample_warning(len(first), len(second), network.dim):
        entries[name]["warning"] = warning
    if name == "fid":
        how = {"seed": seed, "subsets": kid_subsets, "subset_size": min(kid_subset_size, min(len(first), len(second)) // 2),
               "interval": "delete-d jackknife"}  # fmt: skip
        entries["kid"] = _entry("kid", kid(first, second, kid_subsets, kid_subset_size, seed), first, facts | how)
    return entries


def _entry(name: str, estimate: Estimate, features: np.ndarray, facts: dict[str, Any]) -> dict[str, Any]:
    return {"value": estimate.value, "n": len(features), "ci95": [estimate.low, estimate.high],
            "higher_is_better": higher_is_better(name)} | facts  # fmt: skip
