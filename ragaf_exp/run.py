"""Train -> evaluate -> report: python -m ragaf_exp.run [overrides]; any Hydra override and multirun works."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from ragaf_exp.cli import guarded
from ragaf_exp.config.compose import CONF, settable
from ragaf_exp.config.validate import validate


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> None:
    guarded(lambda: job(validate(cfg)))  # here: Hydra would put a line of its own before an error's


def job(cfg: DictConfig) -> None:
    """One run, or one member of a sweep."""
    from ragaf_exp.experiment import run  # heavy: only once the config is known to be good
    from ragaf_exp.summary import print_summary

    print_summary(run(cfg))


def command_line() -> None:
    """What `python -m ragaf_exp.run` calls."""
    sys.argv[1:] = map(settable, sys.argv[1:])
    main()


if __name__ == "__main__":
    guarded(command_line)
