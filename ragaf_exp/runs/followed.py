"""Paths and hub names in the config of a run that was made elsewhere are not followed unless the command line repeats them.

They would read the user's own files (`data.root=/home/me/photos`) or fetch whatever their author put on the hub.
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

HUB = "madebyollin/taesd"  # the one source that a config group names by default
PATHS = {
    "backbone": ("source",), "text": ("source",), "codec": ("source",), "hint": ("source",), "diffusion": ("source",),
    "sketch": ("weights",), "data": ("root", "drawings"),
    "eval": ("pidinet", "inception", "squeezenet", "lpips_backbone", "lpips_heads", "clip_model", "clip_pretrained",
             "clip_config"),
}  # fmt: skip
KEYS = tuple(f"{group}.{key}" for group, keys in PATHS.items() for key in keys)
NETWORKS = ("backbone", "text", "codec", "hint", "diffusion", "sketch")  # what sampling needs


def check_followed(folder: RunFolder, cfg: DictConfig, groups: Iterable[str]) -> None:
    """UserError where the run was made elsewhere and the config names a path that the command line doesn't repeat.

    Args:
        folder: of the run; its `followed` holds the keys that the command line repeats.
        cfg: the run's config, with what the command line changes.
        groups: the config groups, of PATHS, that are about to be used.

    Raises:
        UserError: naming the first such key.
    """
    found = [key for key in _named(cfg, groups) if key not in folder.followed]
    if found and not origin.made_here(folder.path):
        repeated = shlex.join(f"{key}={OmegaConf.select(cfg, key)}" for key in found)
        raise UserError(f"{folder.path}: was made elsewhere, and its config names files or networks, which are used only "
                        f"where the command line repeats them: add {repeated}")  # fmt: skip


def _named(cfg: DictConfig, groups: Iterable[str]) -> list[str]:
    """The keys of these groups that name something which is not this package's default."""
    usual = {f"eval.{field.name}": field.default for field in fields(PLAIN["eval"])}
    keys = [f"{group}.{key}" for group in groups for key in PATHS[group]]
    values = {key: OmegaConf.select(cfg, key) for key in keys}
    return [key for key, value in values.items() if value and value not in (usual.get(key), HUB)]


def split_followed(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments of a command line without those that repeat such a key, and these as a mapping."""
    found = {key: value for word in words for key, _, value in [word.partition("=")] if key in KEYS and "=" in word}
    return [word for word in words if word.partition("=")[0] not in found], found


def follow(folder: RunFolder, cfg: DictConfig, named: dict[str, Any]) -> DictConfig:
    """The config with the paths that the command line names. UserError where a key is none of the run's config."""
    for key, value in named.items():
        group, _, name = key.partition(".")
        if name not in cfg[group]:
            raise UserError(f"{key}: unknown key; this run's {group} has {', '.join(k for k in cfg[group] if k[0] != '_')}")
        OmegaConf.update(cfg, key, value)
    folder.followed |= set(named)
    return validate(cfg, resolve=False) if named else cfg


def named_by(overrides: Sequence[str]) -> set[str]:
    """The keys that overrides name: themselves, or all of a group for which they choose an option."""
    keys = {word.partition("=")[0].lstrip("+") for word in overrides}
    return keys | {key for key in KEYS if key.partition(".")[0] in keys}
