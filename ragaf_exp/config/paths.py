"""Paths in overrides and configs: quoting for Hydra's grammar, and expansion of ~."""

from __future__ import annotations

import re
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

KEYS = (
    "runs", "init", "data.root", "data.source", "data.drawings", "data.coco", "data.extended", "sketch.weights",
    "cache.folder", "backbone.source", "text.source", "codec.source", "diffusion.source",
    "hint.source", "memory.merge", "task.lpips_backbone", "task.lpips_heads", "eval.pidinet", "eval.inception",
    "eval.squeezenet",
    "eval.lpips_backbone", "eval.lpips_heads", "eval.clip_pretrained", "eval.clip_config",
)  # fmt: skip
TEXTS = (*KEYS, "name")  # keys whose values are always text: `name=2024` and `data.root=007` are not numbers
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
FUNCTION = re.compile(r"(?:choice|shuffle|sort)\(.*\)", re.DOTALL)  # Hydra's sweeps, in the values of a multirun
ITEM = re.compile(rf"(?:^|,)\s*({QUOTED.pattern}|[^,]*?)\s*(?=,|$)", re.DOTALL)  # of a list


def quoted(override: str, sweeps: bool = False) -> str:
    """Quote the value of a path key, so that Hydra's grammar accepts any character in it.

    Args:
        override: KEY=VALUE.
        sweeps: Commas separate the values of a sweep (multirun) instead of belonging to the path.

    Returns:
        The override; unchanged for keys other than `TEXTS`, and for null, empty and quoted values.
    """
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+") not in TEXTS:
        return override
    if sweeps and FUNCTION.fullmatch(value):
        return override
    return f"{key}={','.join(map(_quoted, split(value) if sweeps else [value]))}"


def _quoted(value: str) -> str:
    if value in ("", "null") or QUOTED.fullmatch(value):
        return value
    return QuotedString(value, Quote.single).with_quotes()


def split(text: str) -> list[str]:
    """Split a comma-separated list; commas inside quotation marks do not separate. Quotation marks stay."""
    return [item.group(1) for item in ITEM.finditer(text)]


def unquoted(value: str) -> str:
    """Strip a pair of quotation marks around the whole value; other marks belong to the value.

    `"a sign" and "a door"` keeps its marks, `"a sign that says "STOP""` loses the outer pair.
    """
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "'\"":
        return value
    mark, inner = value[0], value[1:-1]
    nested = mark in inner
    pairs_inside = inner.count(mark) % 2 == 0 and mark in (inner[:1], inner[-1:])
    return inner if not nested or pairs_inside else value


def expanded(value: str) -> str:
    """Replace a leading ~ or ~USER by that home folder, where there is one."""
    try:
        return str(Path(value).expanduser()) if value.startswith("~") else value
    except RuntimeError:  # no such user: a file may be called so
        return value


def expand_all(cfg: DictConfig) -> None:
    """Expand ~ in every path of a composed config."""
    for key in KEYS:
        value = OmegaConf.select(cfg, key)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(cfg, key, expanded(value))
