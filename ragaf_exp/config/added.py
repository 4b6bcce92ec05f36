"""Settings that were added later. Config hashes leave them out at their defaults, so that older runs keep their names."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ragaf_exp.config.schema import COARSE, REFINE, Coarse, Refine

# keys that the stages had from the start; they had no others
STAGE_KEYS = {
    COARSE: ("steps", "lr", "scale"),
    REFINE: ("steps", "lr", "strength", "recolour", "region_steps", "region_batch", "region_lr", "coarse_input",
             "coarse_steps"),
}  # fmt: skip


def _added_to(stage: Coarse | Refine, name: str) -> dict[str, Any]:
    return {key: value for key, value in asdict(stage).items() if key not in STAGE_KEYS[name]}


ADDED: dict[str, dict[str, Any]] = {  # group -> key -> default, or of a stage its keys with theirs
    "stage": {"tokens": 0, COARSE: _added_to(Coarse(), COARSE), REFINE: _added_to(Refine(), REFINE)},
    "data": {"width": 0, "buckets": False, "upscale": False, "crop_input": False, "art": "auto", "scale": []},
    "task": {"_target_": "ragaf_exp.tasks.sketch_text.SketchText", "assign": 0.0, "dream": 0.0,
             "image_dropout": 0.0, "light": False, "light_dropout": 0.5},
    "memory": {"base": "float32", "merge": "", "merge_scale": 1.0, "swap": 0, "offload_checkpoints": False},
    "sampler": {"norm_patch": 0, "image_guidance": 1.0},
    "ragaf": {"edges": "all"},
    "backbone": {"attention": "full", "window": 4},
    "injection": {"annotated": False, "isolate": 0.0},
    "hint": {"layers": 0, "single_layers": 0},
    "eval": {"prompted_items": 64},
}


def without_added(content: dict[str, Any]) -> dict[str, Any]:
    """Remove the settings of ADDED that have their defaults from a plain config."""
    groups = {name: content[name] for name in ADDED if isinstance(content.get(name), dict)}
    return content | {name: _without(group, ADDED[name]) for name, group in groups.items()}


def _without(group: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    rest = {k: v for k, v in group.items() if k not in added or v != added[k]}
    return {
        k: _without(v, added[k]) if isinstance(v, dict) and isinstance(added.get(k), dict) else v for k, v in rest.items()
    }


def with_added(content: dict[str, Any]) -> dict[str, Any]:
    """Fill in the `_target_` of ADDED in the groups of a plain config that had none when it was written."""
    targets = {name: {"_target_": added["_target_"]} for name, added in ADDED.items() if "_target_" in added}
    groups = {name: content[name] for name in targets if isinstance(content.get(name), dict)}
    return content | {name: targets[name] | group for name, group in groups.items()}
