"""Entries of metrics.json for the indiscernibility scores U-IDS and P-IDS, from one network's features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eval.features.base import Network
from eval.features.cached import features_of
from eval.images import ImageSet
from eval.metrics.indiscernibility import errors, preferred, realism
from eval.registry import higher_is_better
from eval.statistics.bootstrap import mean_interval

PREFIXES = ("u_ids", "p_ids")  # of the figures' names


def indiscernible_figures(
    images: ImageSet, reference: ImageSet, network: Network, cache_folder: str | Path | None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """`u_ids` and, of sets with the same keys, `p_ids`; with the suffix _<network> for another network than Inception.

    The classifier gets equally many images of both sets: of the larger one a random subset, or of sets with the same keys
    all pairs. The intervals are for the choice of images, given the classifier.

    Args:
        images: The set to be scored.
        reference: The real images.
        network: The feature network.
        cache_folder: Folder of the feature cache; None for none.
        seed: Of the random subset.
    """
    suffix = "" if network.name == "inception" else f"_{network.name}"
    generated, real = (features_of(one, network, cache_folder) for one in (images, reference))
    paired = set(images.keys) == set(reference.keys)
    if paired:
        row = {key: i for i, key in enumerate(reference.keys)}
        real = real[[row[key] for key in images.keys]]
    count, rng = min(len(generated), len(real)), np.random.default_rng(seed)
    generated, real = (_some(features, count, rng) for features in (generated, real))
    decisions = realism(real, generated)
    facts = network.facts() | {
        "n_reference": count, "reference": reference.name, "reference_checksum": reference.checksum, "seed": seed,
        "interval": "bootstrap, given the classifier",
    }  # fmt: skip
    if 2 * count <= network.dim:
        facts["warning"] = (f"{2 * count} images with features of {network.dim} dimensions: a plane can always separate so "
                            f"few; take more than {network.dim // 2} of each")  # fmt: skip
    values = {"u_ids": errors(*decisions)} | ({"p_ids": preferred(*decisions)} if paired else {})
    return {f"{name}{suffix}": _entry(f"{name}{suffix}", of_it, count, facts) for name, of_it in values.items()}


def _some(features: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return features if len(features) == count else features[np.sort(rng.choice(len(features), count, replace=False))]


def _entry(name: str, values: np.ndarray, count: int, facts: dict[str, Any]) -> dict[str, Any]:
    value, low, high = mean_interval(values)
    return {"value": value, "n": count, "ci95": [low, high], "higher_is_better": higher_is_better(name)} | facts
