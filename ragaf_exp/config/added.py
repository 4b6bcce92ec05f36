"""Settings that were added later. Config hashes leave them out at their defaults, so that older runs keep their names."""

from __future__ import annotations

from typing import Any

ADDED: dict[str, dict[str, Any]] = {  # group -> key -> default
    "data": {"width": 0, "buckets": False, "upscale": False, "crop_input": False, "art": "auto", "scale": []},
    "task": {"_target_": "ragaf_exp.tasks.sketch_text.SketchText", "assign": 0.0, "dream": 0.0},
    "memory": {"base": "float32", "merge": "", "merge_scale": 1.0, "swap": 0,
               "offload_checkpoints": False},
    "stage": {"tokens": 0},
    "sampler": {"norm_patch": 0},
    "ragaf": {"edges": "all"},
    "backbone": {"attention": "full", "window": 4},
    "injection": {"annotated": False},
    "hint": {"layers": 0, "single_layers": 0},
    "eval": {"prompted_items": 64},
}


def without_added(content: dict[str, Any]) -> dict[str, Any]:
    """Remove the settings of ADDED that have their defaults from a plain config."""
    groups = {name: content[name] for name in ADDED if isinstance(content.get(name), dict)}
    return content | {
        name: {k: v for k, v in group.items() if k not in ADDED[name] or v != ADDED[name][k]}
        for name, group in groups.items()
    }


def with_added(content: dict[str, Any]) -> dict[str, Any]:
    """Fill in the `_target_` of ADDED in the groups of a plain config that had none when it was written."""
    targets = {name: {"_target_": added["_target_"]} for name, added in ADDED.items() if "_target_" in added}
    groups = {name: content[name] for name in targets if isinstance(content.get(name), dict)}
    return content | {name: targets[name] | group for name, group in groups.items()}
