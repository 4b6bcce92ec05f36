"""Constraints with the lowest version that setup.cfg allows of each package: the packages of a fresh clone, at worst.

python .ci/lowest.py > lowest.txt; pip install --constraint lowest.txt --editable '.[test]'
"""

from __future__ import annotations

import configparser
from pathlib import Path

from packaging.requirements import Requirement

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"
INCLUSIVE = (">=", "==", "~=")


def requirements(setup: Path = SETUP) -> dict[str, list[Requirement]]:
    """The requirements of the package (""), and of each extra but those that refer to others."""
    config = configparser.ConfigParser()
    config.read(setup)
    lists = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {extra: [Requirement(line) for line in text.split("\n") if line and not line.startswith("ragaf_exp[")]
            for extra, text in lists.items()}  # fmt: skip


def tested(setup: Path = SETUP) -> list[Requirement]:
    """The requirements of the extra `test`: the package's own, and those of the extras that it names."""
    config = configparser.ConfigParser()
    config.read(setup)
    lines = config["options.extras_require"]["test"].split("\n")
    extras = {extra for line in lines if line.startswith("ragaf_exp[") for extra in Requirement(line).extras}
    lists = requirements(setup)
    return [requirement for extra in ("", "test", *sorted(extras)) for requirement in lists[extra]]


def lowest(requirement: Requirement) -> str:
    """`name==version` with the lowest version that is allowed. ValueError where nothing bounds it from below."""
    bounds = [bound.version for bound in requirement.specifier if bound.operator in INCLUSIVE]
    if len(bounds) != 1:
        raise ValueError(f"{requirement}: give one lower bound, as {requirement.name}>=1.0")
    return f"{requirement.name}=={bounds[0]}"


def constraints(setup: Path = SETUP) -> list[str]:
    """A line for each package. ValueError where extras bound one differently."""
    every = [requirement for group in requirements(setup).values() for requirement in group]
    by_name: dict[str, str] = {}
    for requirement in every:
        line = lowest(requirement)
        other = by_name.setdefault(requirement.name, line)
        if other != line:
            raise ValueError(f"{requirement.name}: {other} and {line} in one setup.cfg; state the same bound twice")
    return sorted(by_name.values())


if __name__ == "__main__":
    print("\n".join(constraints()))
