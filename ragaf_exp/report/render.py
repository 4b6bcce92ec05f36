"""Fills a page's template. The page needs no other file, and nothing that a run folder says is taken for markup."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, content: dict[str, Any]) -> str:
    """The template of page/ with what it names. Only charts, which this package draws, come as Markup unescaped."""
    environment = Environment(
        loader=PackageLoader("ragaf_exp.report", "page"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = environment.loader.get_source(environment, "style.css")[0]
    return environment.get_template(template).render(style=Markup(style), **content)
