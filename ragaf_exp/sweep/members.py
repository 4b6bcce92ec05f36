"""Members of a sweep: each one's config, composed and fixed at submission."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.compose import config_hash
from ragaf_exp.config.schema import Cluster
from ragaf_exp.config.validate import validate
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resources import CONF
from ragaf_exp.sweep.definition import combinations, parsed, shown


@dataclass(frozen=True)
class Member:
    """One run to be."""

    hash: str
    overrides: dict[str, str]  # key -> value, as given
    cfg: DictConfig  # full and resolved; `runs` is absolute

    @property
    def home(self) -> Path:
        """The sweep's folder, which holds the run folders of all members of this name."""
        return Path(self.cfg.runs) / self.cfg.name

    @property
    def request(self) -> Cluster:
        return OmegaConf.to_object(OmegaConf.merge(Cluster, self.cfg.cluster))


def compose_members(words: Iterable[str]) -> list[Member]:
    """The members that these override words give, each once. UserError where they'd go to more than one folder."""
    words = list(words)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = combinations([*_preset(words), *words])
        swept = {key for key in chosen[0] if len({member[key] for member in chosen}) > 1 and _is_value(key)}
        composer = Composer(swept)
        members = [_member(member, composer) for member in chosen]
    homes = {member.home for member in members}
    if len(homes) > 1:
        raise UserError(f"name, runs: members of one sweep share a folder, these have {len(homes)}; give each once")
    return list({member.hash: member for member in members}.values())


def _preset(words: list[str]) -> list[str]:
    """What an experiment of conf/ that sweeps by itself would sweep."""
    if not any(word.lstrip("+").startswith("experiment=") for word in words):
        return []
    first = combinations(words)[0]
    found = compose("config", list(first.values()), return_hydra_config=True).hydra.sweeper.params
    return [f"{key}={value}" for key, value in (found or {}).items()]


def _is_value(key: str) -> bool:
    """Whether a key is a value's, and not a group's or a package's."""
    return re.fullmatch(r"\w+(\.\w+)*", key) is not None and not (CONF / key).is_dir()


class Composer:
    """Composes configs. Hydra takes 0.1 s for each; values, which it sets last of all, are set here instead, so that
    members which differ in `swept` values alone share one composition.
    """

    def __init__(self, swept: set[str]):
        self.swept = swept
        self.known: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, chosen: dict[str, str]) -> DictConfig:
        words = tuple(word for key, word in chosen.items() if key not in self.swept)
        if words not in self.known:
            self.known[words] = compose("config", list(words))
        cfg = copy.deepcopy(self.known[words])
        for override in parsed([word for key, word in chosen.items() if key in self.swept]):
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True, force_add=True)
        return cfg


def _member(chosen: dict[str, str], composer: Composer) -> Member:
    cfg = validate(composer(chosen))
    cfg.runs = str(Path(cfg.runs).absolute())
    return Member(config_hash(cfg), {key: shown(word) for key, word in chosen.items()}, cfg)
