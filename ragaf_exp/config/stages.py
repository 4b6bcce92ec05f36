"""The stages of training: the order, what each starts from, and what it trains. Their settings are in the group `stage`.

Nothing else asks for a stage's name: code branches on the properties here, and a further stage is one more entry of
STAGES with its dataclass of settings in config/schema.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from ragaf_exp.config.schema import COARSE, REFINE


@dataclass(frozen=True)
class StageKind:
    """A stage.

    Args:
        name: Key of its settings in the group `stage`, name of its folder of checkpoints, and purpose of its noise.
        number: Its place in the order, from 1.
        starts_from: Name of the stage whose weights and samples it starts from; None: from noise and new weights.
        has_region_path: Whether it has and trains the region path.
    """

    name: str
    number: int
    starts_from: str | None = None
    has_region_path: bool = False

    @property
    def image(self) -> str:
        """Name of its samples, and the prefix of its figures where a later stage has some too."""
        return f"stage{self.number}"

    @property
    def title(self) -> str:
        """Its name in reports."""
        return f"Stage {self.number}"

    def setting(self, cfg: DictConfig, name: str, default: Any = None) -> Any:
        """A value of its settings.

        Args:
            cfg: The config of the run.
            name: Key of the setting.
            default: The value for a stage that has no such setting.
        """
        return cfg.stage[self.name].get(name, default)

    def scale(self, cfg: DictConfig) -> int:
        """Factor by which its images are smaller than those of the data."""
        return self.setting(cfg, "scale", 1)

    def takes_start(self, cfg: DictConfig) -> bool:
        """Whether it has the latent that it starts from as an input, too."""
        return self.setting(cfg, "coarse_input", False)


FIRST = StageKind(COARSE, 1)
LAST = StageKind(REFINE, 2, starts_from=FIRST.name, has_region_path=True)
STAGES = {stage.name: stage for stage in (FIRST, LAST)}  # in the order in which they run
IMAGES = tuple(stage.image for stage in STAGES.values())
FIRST_PREFIX = f"{FIRST.image}/"  # of figures in metrics.json


def trained(cfg: DictConfig) -> list[str]:
    """Names of the stages that a run trains, in order."""
    return [name for name in STAGES if name in cfg.stage.run]


def chain(cfg: DictConfig) -> list[str]:
    """Names of the stages whose models a run has: those that it trains, and those that they start from."""
    needed = {*cfg.stage.run, *(STAGES[name].starts_from for name in cfg.stage.run)}
    return [name for name in STAGES if name in needed]


def last_stage(cfg: DictConfig) -> StageKind:
    """The last stage that a run trains."""
    return STAGES[trained(cfg)[-1]]
