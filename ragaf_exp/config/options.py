"""Options of config groups by name, for tasks and data sources that combine several of them."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resources import CONF


def option(group: str, name: str, key: str, **changes: Any) -> DictConfig:
    """Read an option of conf/GROUP.

    Args:
        group: The group.
        name: The option, the name of a YAML file there.
        key: Config key that names it, for the message.
        **changes: Settings to set.

    Raises:
        UserError: There is no such option.
    """
    path = CONF / group / f"{name}.yaml"
    if not re.fullmatch(r"\w+", name) or not path.is_file():
        known = ", ".join(sorted(file.stem for file in (CONF / group).glob("*.yaml")))
        raise UserError(f"{key}: {name} is no option of the group {group}; known are {known}")
    return OmegaConf.merge(OmegaConf.load(path), changes)
