"""From overrides to a checked config, and from a config to the name of its run."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.moved import current, original
from ragaf_exp.config.paths import quoted
from ragaf_exp.config.plain import as_config, read_plain
from ragaf_exp.config.validate import validate
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.resources import CONF

# our launcher presets have the names of their plugins' own schemas, which Hydra remarks on
warnings.filterwarnings("ignore", message="(?s).*validated against ConfigStore schema with the same name")
OmegaConf.register_new_resolver("or_null", lambda value: value or None, replace=True)  # of conf/hydra/launcher
AUTO = "memory=auto"
LIMITS = ("budget", "enforce", "force", "shard")  # keys of group memory that change nothing of what is computed
# where runs are stored and logged, what they are part of, what they continue: nothing of what a config computes
OUTPUT_KEYS = ("runs", "logger", "cache", "cluster", "study", "extend")


def compose_config(overrides: list[str]) -> DictConfig:
    """The checked config of one run, as the command line would compose it.

    memory=auto is resolved before (ragaf_exp.plan.auto.select_profile): it depends on the machine, and a config does not.
    """
    words = [as_hydra_override(override) for override in overrides]
    if GlobalHydra.instance().is_initialized():  # within a job of Hydra's
        return validate(compose("config", words))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return validate(compose("config", words))


def as_hydra_override(override: str, sweeps: bool = False) -> str:
    """An override of a group's key in the form in which Hydra takes one that no YAML states; paths are quoted.

    Schemas hold more keys than the YAMLs; which of them are known, `validate` says. sweeps: commas separate the values
    of a sweep in paths, too. UserError where a group is given a value that can't be the name of an option.
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
    """12 hex digits of the full resolved config: the same config finds its own run again."""
    content = {k: v for k, v in original(OmegaConf.to_container(cfg, resolve=True)).items() if k not in OUTPUT_KEYS}
    content["memory"] = {k: v for k, v in content["memory"].items() if k not in LIMITS}
    return json_digest(content, 12)


def load_config(path: Path) -> DictConfig:
    """The checked config of a run folder, perhaps a stranger's: plain YAML, nothing is resolved or run."""
    raw = as_config(current(read_plain(path)), path)
    if OmegaConf.is_dict(raw.setdefault("cache", {})):
        raw.setdefault("study", {})  # runs of earlier versions were none's part
        raw.cache.folder = ""  # where this host keeps its cache is not for a run folder to say, perhaps a stranger's
    try:
        return validate(raw, keep=False, resolve=False)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
