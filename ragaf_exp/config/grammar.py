"""One-line messages for Hydra's errors, showing the override as it was typed, without search paths and links."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from ragaf_exp.core.errors import UserError

SEVERAL = re.compile(r"Ambiguous value for argument '(?:\+\+)?([^=]*)=")
ADDED = re.compile(r"(?<![\w+])\+\+(?=\w)")  # the prefix that `as_hydra_override` adds
LINK = re.compile(r"\s*See https?://\S+( for details)?")


def refusal(error: HydraException) -> str:
    """Describe the faulty override and the remedy, in one line."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override.removeprefix("++"))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: no such option; the group {group} has {', '.join(sorted(error.options))}"
    text = " ".join(str(error).split())
    if several := SEVERAL.search(text):
        key = several.group(1)
        return f"{key}: several values; add -m for a run of each, or give a list as {key}=[A,B]"
    return LINK.sub("", ADDED.sub("", text))


def _unreadable(override: str) -> str:
    key, equals, _ = override.partition("=")
    if not equals:
        return f"{override}: not an override; give KEY=VALUE"
    return f"{override}: Hydra can't parse this; put the value in quotes, as '{key}=\"VALUE\"'"


def check_flags(arguments: Sequence[str]) -> None:
    """Raise UserError for an argument that looks like an option but is not one of Hydra's."""
    parser = get_args_parser()
    known = [name for action in parser._actions for name in action.option_strings]
    for argument in arguments:
        if argument.startswith("-") and not any(_names(argument, name) for name in known):
            raise UserError(f"{argument}: unknown option; settings are KEY=VALUE, and the options are "
                            f"{', '.join(name for name in known if name.startswith('--'))}")  # fmt: skip


def _names(argument: str, option: str) -> bool:
    """Whether argparse would take the argument for this option: --option[=VALUE], abbreviated, or -o[VALUE]."""
    if argument.startswith("--"):
        return len(argument) > 2 and option.startswith(argument.partition("=")[0])
    return argument.startswith(option)
