"""Members of a sweep: the config of each, composed at submission."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.compose import config_hash
from ragaf_exp.config.hydra_versions import VERSION_BASE
from ragaf_exp.config.schema import Cluster
from ragaf_exp.config.validate import validate
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resources import CONF
from ragaf_exp.sweep.definition import combinations, parse_overrides, unquoted_value


@dataclass(frozen=True)
class Member:
    """One run of a sweep, before it is submitted."""

    hash: str
    overrides: dict[str, str]  # key -> value, as given
    cfg: DictConfig  # full and resolved; `runs` is absolute

    @property
    def home(self) -> Path:
        """The sweep's folder, with the run folders of all members."""
        return Path(self.cfg.runs) / self.cfg.name

    @property
    def request(self) -> Cluster:
        return OmegaConf.to_object(OmegaConf.merge(Cluster, self.cfg.cluster))


def compose_members(overrides: Iterable[str]) -> list[Member]:
    """Compose the distinct members that these overrides give. Raises UserError if they belong to more than one folder."""
    overrides = list(overrides)
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        combined = combinations([*_preset(overrides), *overrides])
        swept = {key for key in combined[0] if len({member[key] for member in combined}) > 1 and _is_value(key)}
        composer = Composer(swept)
        members = [_member(member, composer) for member in combined]
    homes = {member.home for member in members}
    if len(homes) > 1:
        raise UserError(f"name, runs: members of one sweep share a folder, but these have {len(homes)}; do not sweep them")
    return list({member.hash: member for member in members}.values())


def _preset(overrides: list[str]) -> list[str]:
    """The overrides of an experiment in conf/ that sets hydra.sweeper.params."""
    if not any(override.lstrip("+").startswith("experiment=") for override in overrides):
        return []
    first = combinations(overrides)[0]
    params = compose("config", list(first.values()), return_hydra_config=True).hydra.sweeper.params
    return [f"{key}={value}" for key, value in (params or {}).items()]


def _is_value(key: str) -> bool:
    """Whether a key names a config value, rather than a group or a package."""
    return re.fullmatch(r"\w+(\.\w+)*", key) is not None and not (CONF / key).is_dir()


class Composer:
    """Composes configs, which takes Hydra 0.1 s each.

    Hydra applies value overrides last. They are applied here instead, so that members that differ only in the `swept`
    values share one composition.
    """

    def __init__(self, swept: set[str]):
        self.swept = swept
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: dict[str, str]) -> DictConfig:
        shared = tuple(override for key, override in overrides.items() if key not in self.swept)
        if shared not in self.composed:
            self.composed[shared] = compose("config", list(shared))
        cfg = copy.deepcopy(self.composed[shared])
        for override in parse_overrides([text for key, text in overrides.items() if key in self.swept]):
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True, force_add=True)
        return cfg


def _member(overrides: dict[str, str], composer: Composer) -> Member:
    cfg = validate(composer(overrides))
    cfg.runs = str(Path(cfg.runs).absolute())
    return Member(config_hash(cfg), {key: unquoted_value(text) for key, text in overrides.items()}, cfg)
