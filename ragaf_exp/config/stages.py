"""The stages of training as the group `stage` lists them: their order, what each starts from, and what it trains.

A stage is one more name in the config with `starts_from`; no code asks for a stage's name. The stages of a run form a
chain: sampling runs all of it, each stage from the samples of the one before. That is why there is one list of names
(stage.run) and no order to state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

from ragaf_exp.config.schema import COARSE, MOST_STAGES, PLAIN, REFINE, Stage, StageSettings
from ragaf_exp.core.errors import UserError

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")  # part of files' names
RESERVED = ("regions", "validation", "sampling")  # phases of the memory planner
IMAGES = tuple(f"stage{number}" for number in range(1, MOST_STAGES + 1))  # names of samples, see StageSpec.image


@dataclass(frozen=True)
class StageSpec:
    """A stage of a run.

    Args:
        name: Key of its settings in the group `stage`, name of its folder of checkpoints, and purpose of its noise.
        number: Its position in its chain, from 1.
        first: Name of the first stage of the chain.
        settings: Its settings.
    """

    name: str
    number: int
    first: str
    settings: Mapping[str, Any]

    @property
    def image(self) -> str:
        """Name of its samples, and the prefix of its figures where a later stage has some too."""
        return IMAGES[self.number - 1]

    @property
    def title(self) -> str:
        """Its name in reports."""
        return title_of(self.image)

    @property
    def starts_from(self) -> str | None:
        """The stage whose weights and samples it starts from; None: new weights, and noise."""
        return self.settings["starts_from"]

    @property
    def has_regions(self) -> bool:
        """Whether it has and trains the region path."""
        return self.settings["regions"]

    @property
    def scale(self) -> int:
        """Factor by which its images are smaller than those of the data."""
        return self.settings["scale"]

    @property
    def takes_start(self) -> bool:
        """Whether it has the latent that it starts from as an input, too."""
        return self.settings["coarse_input"]

    @property
    def strength(self) -> float:
        """Share of the noise schedule that it samples over and is trained on: all of it where it starts from noise."""
        return self.settings["strength"] if self.starts_from else 1.0

    @property
    def recolour(self) -> float:
        """Share of training starts with wrong colours in their regions; a stage that starts from noise has none."""
        return self.settings["recolour"] if self.starts_from else 0.0

    @property
    def region_steps(self) -> int:
        """Earlier steps that train only the region path, if there is a loss for them."""
        return self.settings["region_steps"] if self.has_regions else 0


def title_of(image: str) -> str:
    """Title of a stage in reports, given the name of its samples."""
    return f"Stage {image.removeprefix('stage')}"


def chain(cfg: Mapping[str, Any]) -> list[StageSpec]:
    """The stages whose models a run has, in order: those that it trains, and those that they start from.

    Args:
        cfg: A checked config, or a plain mapping of one.
    """
    group = cfg["stage"]
    longest = max((_ancestry(group, name) for name in reversed(group["run"])), key=len)
    return [stage_of(cfg, name) for name in longest]


def trained(cfg: Mapping[str, Any]) -> list[StageSpec]:
    """The stages that a run trains, in order."""
    return [stage for stage in chain(cfg) if stage.name in cfg["stage"]["run"]]


def stage_of(cfg: Mapping[str, Any], name: str) -> StageSpec:
    """A stage of a config by its name."""
    ancestry = _ancestry(cfg["stage"], name)
    return StageSpec(name, len(ancestry), ancestry[0], cfg["stage"][name])


def plain_schema(key: str, content: Mapping[str, Any]) -> type:
    """Return the schema of a plain group, with a field for each further stage in the content of the group `stage`.

    Raises UserError for a stage that no key `starts_from` defines, as of a misspelt name, and for one that has no name.
    """
    known = {one.name for one in fields(PLAIN[key])}
    names = [str(name) for name, value in content.items() if name not in known and isinstance(value, Mapping)]
    if PLAIN[key] is not Stage or not names:
        return PLAIN[key]
    for name in names:
        if "starts_from" not in content[name]:
            raise UserError(f"stage.{name}: unknown stage; known are {COARSE}, {REFINE}, and a further one states "
                            f"stage.{name}.starts_from (null: noise)")  # fmt: skip
        if not NAME.fullmatch(name) or name in RESERVED:
            raise UserError(f"stage.{name}: no name of a stage; take small letters, digits and _, and none of "
                            f"{', '.join(RESERVED)}")  # fmt: skip
    further = [(name, StageSettings, field(default_factory=StageSettings)) for name in names]
    return make_dataclass(Stage.__name__, further, bases=(Stage,))


def check_stages(group: Mapping[str, Any]) -> None:
    """Raise UserError unless the stages of the group `stage` exist and those that run form a chain."""
    known = [name for name, value in group.items() if isinstance(value, Mapping)]
    for index, name in enumerate(group["run"]):
        if name not in known:
            raise UserError(f"stage.run[{index}]={name}: must be one of {', '.join(known)}; a further stage is "
                            f"stage.NAME={{starts_from: ...}}")  # fmt: skip
    for name in known:
        start = group[name]["starts_from"]
        if start is not None and start not in known:
            raise UserError(f"stage.{name}.starts_from={start}: must be one of {', '.join(known)}, or null for noise")
        if len(_ancestry(group, name)) > len(set(_ancestry(group, name))):
            raise UserError(f"stage.{name}.starts_from={start}: a circle; set starts_from=null for one of its stages")
    _check_chain(group)
    for stage in chain({"stage": group}):
        _check_start(stage, group)


def _ancestry(group: Mapping[str, Any], name: str) -> list[str]:
    """The names of the stages from the first one to this; in a circle, the one where it closes comes twice."""
    names = [name]
    while (start := group[names[0]]["starts_from"]) is not None:
        names.insert(0, start)
        if start in names[1:]:
            break
    return names


def _check_chain(group: Mapping[str, Any]) -> None:
    run = list(group["run"])
    names = [stage.name for stage in chain({"stage": group})]
    shown = f"stage.run=[{','.join(run)}]"
    if aside := [name for name in run if name not in names]:
        raise UserError(f"{shown}: {names[-1]} does not start from {aside[0]}; leave one out, or set "
                        f"stage.{names[-1]}.starts_from={aside[0]}")  # fmt: skip
    if len(names) > MOST_STAGES:
        raise UserError(f"{shown}: a chain of {len(names)} stages; take at most {MOST_STAGES}")
    first = min(map(names.index, run))
    if between := [name for name in names[first:] if name not in run]:
        raise UserError(f"{shown}: {between[0]} lies between stages that run; add it")


def _check_start(stage: StageSpec, group: Mapping[str, Any]) -> None:
    """Refuse settings that do not fit the stage that this one starts from."""
    key, start = f"stage.{stage.name}", stage.starts_from
    if start is None:
        if stage.takes_start:
            raise UserError(f"{key}.coarse_input=true: it starts from noise; set {key}.starts_from, or coarse_input=false")
        return
    if group[start]["regions"] and not stage.has_regions:
        raise UserError(f"{key}.regions=false: it starts from {start}, which has regions; set {key}.regions=true")
    if stage.takes_start and group[start]["starts_from"] is not None:
        raise UserError(f"{key}.coarse_input=true: needs a stage that starts from noise, and {start} starts from "
                        f"{group[start]['starts_from']}; set {key}.coarse_input=false")  # fmt: skip
    if stage.takes_start and group[start]["scale"] != stage.scale:
        raise UserError(f"{key}.coarse_input=true: the latent of {start} has another size; set stage.{start}.scale="
                        f"{stage.scale}")  # fmt: skip
    if group[start]["scale"] % stage.scale:
        raise UserError(f"{key}.scale={stage.scale}: must divide the scale of {start}, {group[start]['scale']}")
