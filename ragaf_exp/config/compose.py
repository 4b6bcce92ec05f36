"""Composition of a checked config from overrides, and the config hash that names its run."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.hydra_versions import VERSION_BASE, register_resolver
from ragaf_exp.config.moved import current, original
from ragaf_exp.config.paths import quoted
from ragaf_exp.config.plain import as_config, read_plain
from ragaf_exp.config.validate import validate
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.resources import CONF

# our launcher presets have the names of their plugins' own schemas, which Hydra warns about
warnings.filterwarnings("ignore", message="(?s).*validated against ConfigStore schema with the same name")
register_resolver("or_null", lambda value: value or None)  # for conf/hydra/launcher
AUTO = "memory=auto"
LIMITS = ("budget", "enforce", "force", "shard")  # keys of group memory that do not affect results
# keys that say where runs are stored and logged, which study they belong to and what they continue: no effect on results
OUTPUT_KEYS = ("runs", "logger", "cache", "cluster", "study", "extend")


def compose_config(overrides: list[str]) -> DictConfig:
    """Compose and check the config of one run, as its command line does.

    memory=auto must be resolved before (ragaf_exp.plan.auto.select_profile): it depends on the machine.
    """
    hydra_overrides = [as_hydra_override(override) for override in with_choices(overrides)]
    if GlobalHydra.instance().is_initialized():  # inside a Hydra job
        return validate(compose("config", hydra_overrides))
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        return validate(compose("config", hydra_overrides))


def with_choices(overrides: list[str]) -> list[str]:
    """Add the groups that backbone=OPTION chooses, if there is a memory profile too: they win over those of the profile.

    Groups that the command line names itself stay as they are.
    """
    given = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    path = CONF / "backbone" / f"{given.get('backbone', '')}.yaml"
    if "memory" not in given or not path.is_file():
        return overrides
    defaults = OmegaConf.load(path).get("defaults", [])
    chosen = {key.removeprefix("override /"): option for entry in defaults for key, option in entry.items()}
    return [*overrides, *(f"{group}={option}" for group, option in chosen.items() if group not in given)]


def as_hydra_override(override: str, sweeps: bool = False) -> str:
    """Convert an override to a form that Hydra accepts for keys that no YAML states; paths are quoted.

    Schemas hold more keys than the YAMLs, so unknown keys are left to `validate`.

    Args:
        override: KEY=VALUE or GROUP=OPTION.
        sweeps: Commas separate the values of a sweep, in paths too.

    Raises:
        UserError: The key is empty, or a group's value can't be the name of an option.
    """
    override = quoted(override, sweeps)
    key, equals, value = override.partition("=")
    if equals and not key:
        raise UserError(f"{override}: no key in front of =; give KEY=VALUE")
    group = re.fullmatch(r"\w+(/\w+)*", key) and (CONF / key).is_dir()
    if equals and group and any(re.fullmatch(r"null|true|false|[-+\d.]*", option.strip()) for option in value.split(",")):
        options = ", ".join(sorted(path.stem for path in (CONF / key).glob("*.yaml")))
        raise UserError(f"{override}: no option of the group conf/{key}/; known are {options}")
    inside = equals and re.fullmatch(r"\w+(\.\w+)+", key) and not key.startswith("hydra.")
    return f"++{override}" if inside else override


def config_hash(cfg: DictConfig) -> str:
    """Hash the full resolved config to 12 hex digits, by which the same config locates its run again."""
    content = {k: v for k, v in original(OmegaConf.to_container(cfg, resolve=True)).items() if k not in OUTPUT_KEYS}
    content["memory"] = {k: v for k, v in content["memory"].items() if k not in LIMITS}
    return json_digest(content, 12)


def load_config(path: Path) -> DictConfig:
    """Load and check the config of a run folder, perhaps untrusted: plain YAML, nothing is resolved or executed."""
    raw = as_config(current(read_plain(path)), path)
    if OmegaConf.is_dict(raw.setdefault("cache", {})):
        raw.setdefault("study", {})  # runs of earlier versions had no such group
        raw.cache.folder = ""  # an untrusted run folder must not choose this host's cache folder
    try:
        return validate(raw, keep=False, resolve=False)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
