"""Hydra's refusals in one line that shows the override as it was typed, without search paths and links."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from ragaf_exp.core.errors import UserError

SEVERAL = re.compile(r"Ambiguous value for argument '(?:\+\+)?([^=]*)=")
ADDED = re.compile(r"(?<![\w+])\+\+(?=\w)")  # the prefix with which `settable` hands an override to Hydra
LINK = re.compile(r"\s*See https?://\S+( for details)?")


def refusal(error: HydraException) -> str:
    """What is wrong with which override, and the remedy, in one line."""
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


def check_flags(words: Sequence[str]) -> None:
    """UserError where an argument looks like an option and Hydra has none of that name."""
    parser = get_args_parser()
    known = [name for action in parser._actions for name in action.option_strings]
    for word in words:
        if word.startswith("-") and not any(_names(word, name) for name in known):
            raise UserError(f"{word}: unknown option; settings are KEY=VALUE, and the options are "
                            f"{', '.join(name for name in known if name.startswith('--'))}")  # fmt: skip


def _names(word: str, option: str) -> bool:
    """Whether argparse would take the word for this option: --option[=VALUE], abbreviated, or -o[VALUE]."""
    if word.startswith("--"):
        return len(word) > 2 and option.startswith(word.partition("=")[0])
    return word.startswith(option)
