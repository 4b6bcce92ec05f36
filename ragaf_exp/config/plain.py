"""Safe reading of untrusted YAML: plain values only, of bounded size. Checks run on parsed nodes, not on the text."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import read_bounded

BYTES = 2**20  # of the largest config that is read; ours have about 6,000
NODES, DEEPEST = 20_000, 32  # most nodes and levels of a config; ours have about 300 values, four levels deep
PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def read_plain(path: Path) -> dict[str, Any]:
    """Read the mapping in a run folder's YAML file.

    Raises UserError if the file is missing, not a mapping, too large, or holds an alias or an interpolation.
    """
    try:
        text = read_bounded(path, BYTES).decode()
        _check_events(text, path)
        content = _parsed(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: missing; is {path.parent} a run folder?") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}); restore it or train again") from error
    if not content:
        raise UserError(f"{path}: empty or not a mapping; restore it or train again")
    _check_values(content, path)
    return content


def _parsed(text: str) -> dict[str, Any]:
    """Parse a mapping as OmegaConf reads numbers and double keys, with interpolations as text; {} for other content."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except OSError:  # OmegaConf's error for a scalar
        return {}
    return content if isinstance(content, dict) else {}


def _check_events(text: str, path: Path) -> None:
    """Refuse aliases, which expand a few lines into gigabytes, and more or deeper nodes than a config has."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=PARSER)):
        depth += isinstance(event, OPENING) - isinstance(event, CLOSING)
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{path}: holds an alias (*{event.anchor}); a run's config holds plain values")
        if count > NODES or depth > DEEPEST:
            what = f"{NODES:,} nodes" if count > NODES else f"{DEEPEST} levels"
            raise UserError(f"{path}: more than {what}, which no run's config has; restore it or train again")


def _check_values(content: dict[str, Any], path: Path) -> None:
    """Refuse interpolations in keys and values, as they could read environment variables."""
    level: list[Any] = [content]
    while level:
        value = level.pop()
        if isinstance(value, dict):
            level += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            level += value
        elif isinstance(value, str) and "${" in value:
            raise UserError(f"{path}: holds an interpolation (${{...}}); a run's config is fully resolved")


def as_config(content: dict[str, Any], path: Path) -> Any:
    """Convert a mapping to OmegaConf's. Raises UserError for values that it does not take, such as a date."""
    try:
        return OmegaConf.create(content)
    except Exception as error:  # of many types
        raise UserError(f"{path}: damaged ({type(error).__name__}); restore it or train again") from error
