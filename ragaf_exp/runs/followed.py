"""Protection against paths and hub names in configs from elsewhere: they are used only if the command line repeats them.

Otherwise they could read the user's own files (`data.root=/home/me/photos`) or fetch anything that their author put on
the hub.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.schema import PLAIN
from ragaf_exp.config.validate import validate
from ragaf_exp.core.errors import UserError
from ragaf_exp.runs import origin

if TYPE_CHECKING:
    from ragaf_exp.runs.folder import RunFolder

HUB = "madebyollin/taesd"  # the only source that a config group names by default
PATHS = {
    "backbone": ("source",), "text": ("source",), "codec": ("source",), "hint": ("source",), "diffusion": ("source",),
    "sketch": ("weights",), "memory": ("merge",), "task": ("lpips_backbone", "lpips_heads"),
    "data": ("root", "source", "drawings", "coco", "extended", "table"),
    "eval": ("pidinet", "inception", "squeezenet", "lpips_backbone", "lpips_heads", "clip_model", "clip_pretrained",
             "clip_config"),
}  # fmt: skip
KEYS = tuple(f"{group}.{key}" for group, keys in PATHS.items() for key in keys)
NETWORKS = ("backbone", "text", "codec", "hint", "diffusion", "sketch")  # groups that sampling needs


def check_followed(folder: RunFolder, cfg: DictConfig, groups: Iterable[str]) -> None:
    """Refuse the config of a run from elsewhere that names a path which the command line does not repeat.

    Args:
        folder: The run; its `followed` holds the keys that the command line repeats.
        cfg: The run's config, with the command line's changes.
        groups: The config groups, of PATHS, that are about to be used.

    Raises:
        UserError: There are such keys; the message lists them.
    """
    unconfirmed = [key for key in _named(cfg, groups) if key not in folder.followed]
    if unconfirmed and not origin.made_here(folder.path):
        repeated = shlex.join(f"{key}={OmegaConf.select(cfg, key)}" for key in unconfirmed)
        raise UserError(f"{folder.path}: was made elsewhere, and its config names files or networks, which are used only "
                        f"where the command line repeats them: add {repeated}")  # fmt: skip


def _named(cfg: DictConfig, groups: Iterable[str]) -> list[str]:
    """List the keys of these groups whose value is neither empty nor this package's default."""
    usual = {f"eval.{field.name}": field.default for field in fields(PLAIN["eval"])}
    keys = [f"{group}.{key}" for group in groups for key in PATHS[group]]
    values = {key: OmegaConf.select(cfg, key) for key in keys}
    return [key for key, value in values.items() if value and value not in (usual.get(key), HUB)]


def split_followed(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Split a command line into arguments for other keys, and the mapping of those that repeat such a key."""
    repeated = {key: value for argument in arguments for key, equals, value in [argument.partition("=")]
                if key in KEYS and equals}  # fmt: skip
    return [argument for argument in arguments if argument.partition("=")[0] not in repeated], repeated


def follow(folder: RunFolder, cfg: DictConfig, named: dict[str, Any]) -> DictConfig:
    """Set the paths that the command line names.

    Args:
        folder: The run; its `followed` is extended by the keys.
        cfg: The run's config, changed in place.
        named: Full key -> value.

    Returns:
        The checked config.

    Raises:
        UserError: The run's config does not have such a key.
    """
    for key, value in named.items():
        group, _, name = key.partition(".")
        if name not in cfg[group]:
            raise UserError(f"{key}: unknown key; this run's {group} has {', '.join(k for k in cfg[group] if k[0] != '_')}")
        OmegaConf.update(cfg, key, value)
    folder.followed |= set(named)
    return validate(cfg, resolve=False) if named else cfg


def named_by(overrides: Sequence[str]) -> set[str]:
    """Return the keys that overrides set, including all keys of a group for which they choose an option."""
    keys = {override.partition("=")[0].lstrip("+") for override in overrides}
    return keys | {key for key in KEYS if key.partition(".")[0] in keys}
