"""Renders a page's template. The page is self-contained, and text from run folders is always escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, content: dict[str, Any]) -> str:
    """Render a template of page/. Only charts, which this package draws, are passed as unescaped Markup."""
    environment = Environment(
        loader=PackageLoader("ragaf_exp.report", "page"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = environment.loader.get_source(environment, "style.css")[0]
    return environment.get_template(template).render(style=Markup(style), **content)
