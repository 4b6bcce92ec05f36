"""Aliases of modules that have moved, so that configs of older runs load and their hashes stay the same.

A `_target_` in a run's config.yaml names a class by its module. `current` translates the names of older versions when
a config is read. Config hashes are computed over the older names (`original`), so that run folders, shared stage 1
folders and stored samples keep their names.
"""

from __future__ import annotations

from typing import Any

from ragaf_exp.config.added import with_added, without_added

MOVED = {
    "ragaf_exp.augment.drawing": "ragaf_exp.sketch.augment.drawing",
    "ragaf_exp.augment.none": "ragaf_exp.sketch.augment.none",
    "ragaf_exp.data.folder": "ragaf_exp.data.sources.folder",
    "ragaf_exp.data.openmoji": "ragaf_exp.data.sources.openmoji",
    "ragaf_exp.data.scenes": "ragaf_exp.data.sources.scenes",
    "ragaf_exp.diffusion": "ragaf_exp.diffusion.process",
    "ragaf_exp.models.autoencoder": "ragaf_exp.models.codecs.autoencoder",
    "ragaf_exp.models.backbone": "ragaf_exp.models.backbones.unet",
    "ragaf_exp.models.clip": "ragaf_exp.models.text.clip",
    "ragaf_exp.models.codec": "ragaf_exp.models.codecs.pixel",
    "ragaf_exp.models.controlnet": "ragaf_exp.models.control.controlnet",
    "ragaf_exp.models.fusion": "ragaf_exp.models.regions.fusion",
    "ragaf_exp.models.hint": "ragaf_exp.models.control.lite",
    "ragaf_exp.models.injection": "ragaf_exp.models.regions.injection",
    "ragaf_exp.models.ragaf": "ragaf_exp.models.regions.encoder",
    "ragaf_exp.models.schedule": "ragaf_exp.models.loading.schedule",
    "ragaf_exp.models.stable": "ragaf_exp.models.backbones.stable_diffusion",
    "ragaf_exp.models.t2i": "ragaf_exp.models.control.t2i_adapter",
    "ragaf_exp.models.text": "ragaf_exp.models.text.tiny",
    "ragaf_exp.sampler": "ragaf_exp.diffusion.sampler",
}  # module in version 0.1 -> module today
ORIGINAL = {new: old for old, new in MOVED.items()}


def current(node: Any) -> Any:
    """Translate each `_target_` in a plain container to its present name, and fill in those added later."""
    node = _translated(node, MOVED)
    return with_added(node) if isinstance(node, dict) else node


def original(node: Any) -> Any:
    """Translate each `_target_` in a plain container to the name that hashes are computed over.

    Of a whole config, settings that were added later are left out at their defaults.
    """
    node = _translated(node, ORIGINAL)
    return without_added(node) if isinstance(node, dict) else node


def _translated(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {k: _target(v, names) if k == "_target_" else _translated(v, names) for k, v in node.items()}
    if isinstance(node, list):
        return [_translated(value, names) for value in node]
    return node


def _target(target: Any, names: dict[str, str]) -> Any:
    if not isinstance(target, str):
        return target
    module, _, name = target.rpartition(".")
    return f"{names.get(module, module)}.{name}"
