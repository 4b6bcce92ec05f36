"""Sweep files (sweeps/*.yaml): read, check and expand them into the overrides of every member."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ragaf_exp.config.compose import as_hydra_override
from ragaf_exp.config.paths import QUOTED
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resources import SWEEPS

KEYS = ("name", "overrides", "grid", "search")
PLAIN = re.compile(r"[\w./+-]+", re.ASCII)  # values that need no quotes in Hydra's grammar


@dataclass(frozen=True)
class Sweep:
    """A sweep file: `overrides` apply to all members; every combination of the values in `grid` is one member."""

    name: str  # the members' run folders are in runs/<name>
    overrides: list[str] = field(default_factory=list)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)  # settings of a hyper-parameter search, see search.py

    @property
    def all_overrides(self) -> list[str]:
        """The whole file as overrides on a Hydra command line."""
        axes = [f"{key}={','.join(map(hydra_value, values))}" for key, values in self.grid.items()]
        return [f"name={hydra_value(self.name)}", *self.overrides, *axes]


def read_sweep(name: str) -> Sweep:
    """Read a sweep from a file, or by its name in sweeps/. Raises UserError if it is missing or has a wrong key."""
    path = next((p for p in (Path(name), SWEEPS / name, SWEEPS / f"{name}.yaml") if p.is_file()), None)
    if path is None:
        known = ", ".join(sorted(p.stem for p in SWEEPS.glob("*.yaml")))
        raise UserError(f"{name}: no such sweep; give a file, or one of sweeps/: {known}")
    content = _content(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping with some of {', '.join(KEYS)}")
    for key in content:
        if key not in KEYS:
            raise UserError(f"{path}: {key}: unknown key; known are {', '.join(KEYS)}")
    sweep = Sweep(content.get("name") or path.stem, *(content.get(key) or kind() for key, kind in
                  (("overrides", list), ("grid", dict), ("search", dict))))  # fmt: skip
    _check(sweep, path)
    return sweep


def _content(path: Path) -> Any:
    """Read YAML as OmegaConf does, so that 1e-4 is a number, as in conf/. Interpolations stay text."""
    try:
        content = OmegaConf.create(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deep, or contains a recursive alias; write it out") from error
    return OmegaConf.to_container(content) or None


def _check(sweep: Sweep, path: Path) -> None:
    if not isinstance(sweep.name, str | int | float):
        raise UserError(f"{path}: name: must be text, e.g. {path.stem}")
    if not isinstance(sweep.overrides, list) or not all(isinstance(entry, str) for entry in sweep.overrides):
        raise UserError(f"{path}: overrides: must be a list of overrides, e.g. [memory=cpu]")
    lists = isinstance(sweep.grid, dict) and all(isinstance(v, list) and v for v in sweep.grid.values())
    if not lists:
        raise UserError(f"{path}: grid: must give each key a list of values, e.g. seed: [0, 1]")
    for key, values in sweep.grid.items():
        if not re.fullmatch(r"[+~]*[\w./@]+", str(key), re.ASCII):
            raise UserError(f"{path}: grid: {key!r}: not a config key; write it like optim.warmup")
        if any(isinstance(value, dict) for value in values):
            raise UserError(f"{path}: grid: {key}: a value must be a number, text or list; set a group's keys one by one")
    if not isinstance(sweep.search, dict):
        raise UserError(f"{path}: search: must be a mapping")


def hydra_value(value: Any) -> str:
    """A YAML value in the syntax of Hydra's command line."""
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    text = str(value)
    if PLAIN.fullmatch(text):
        return text
    return QuotedString(text, Quote.single).with_quotes()


def combinations(overrides: Iterable[str]) -> list[dict[str, str]]:
    """Every member as {key: override}. A later override of a key replaces an earlier one."""
    axes: dict[str, list[str]] = {}
    for override in parse_overrides([as_hydra_override(text, sweeps=True) for text in overrides]):
        axes[override.get_key_element().lstrip("+")] = _values(override)
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def parse_overrides(overrides: list[str]) -> list[Override]:
    """Parse overrides with Hydra's grammar."""
    hydra = GlobalHydra.instance()  # once initialised, it resolves glob(*) to a group's options
    return OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None).parse_overrides(overrides)


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def unquoted_value(override: str) -> str:
    """The value of an override, without Hydra's quotes."""
    value = override.partition("=")[2]
    return str(parse_overrides([f"value={value}"])[0].value()) if QUOTED.fullmatch(value) else value
