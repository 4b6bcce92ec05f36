"""The table of a sweep: for the terminal, as HTML and as JSON."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ragaf_exp.sweep.status import Row

COLUMNS = ("state", "stage", "step", "rate", "left", "job", "error")
COLOURS = {"done": "green", "running": "cyan", "starting": "cyan", "failed": "red", "lost": "red", "cancelled": "yellow",
           "preempted": "yellow", "requeued": "yellow", "stalled": "yellow"}  # fmt: skip
PAGES = Path(__file__).with_name("page"), Path(__file__).resolve().parents[1] / "report" / "page"
REFRESH = 20  # seconds between reloads in a browser
SHOWN = 40  # rows on a terminal; members that are not done come first


@dataclass
class Table:
    """All members of a sweep, each as a row of text cells."""

    title: str
    rows: list[Row]
    notes: list[str]
    keys: list[str] = field(init=False)  # the config keys in which members differ

    def __post_init__(self) -> None:
        named = dict.fromkeys(key for row in self.rows for key in row.overrides)
        self.keys = [key for key in named if len({row.overrides.get(key) for row in self.rows}) > 1]

    @property
    def summary(self) -> str:
        counts = Counter(row.state for row in self.rows)
        return f"{len(self.rows)} members: " + ", ".join(f"{count} {state}" for state, count in counts.most_common())

    def cells(self, row: Row) -> dict[str, str]:
        facts = row.facts
        step = f"{facts['step']}/{facts['steps']}" if "step" in facts and facts.get("steps") else str(facts.get("step", ""))
        rate = facts.get("rate")
        return {"member": row.hash, **{key: row.overrides.get(key, "") for key in self.keys}, "state": row.state,
                "stage": str(facts.get("stage") or ""), "step": step,
                "rate": f"{rate:.3g}/s" if isinstance(rate, int | float) and row.state == "running" else "",
                "left": duration(row.left), "job": row.job, "error": row.error}  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        members = [{"member": row.hash, "path": str(row.path), "differs": {k: row.overrides.get(k) for k in self.keys},
                    "state": row.state, "error": row.error or None, "job": row.job or None, "left_seconds": row.left,
                    **{key: row.facts.get(key) for key in ("stage", "step", "steps", "rate", "updated")}}
                   for row in self.rows]  # fmt: skip
        counts = dict(Counter(row.state for row in self.rows))
        return {"schema": 1, "sweep": self.title, "at": round(time.time(), 1), "counts": counts, "notes": self.notes,
                "members": members}  # fmt: skip

    def as_html(self, refresh: bool = True) -> str:
        return render("status.html", title=self.title, summary=self.summary, notes=self.notes,
                      columns=["member", *self.keys, *COLUMNS], rows=[self.cells(row) for row in self.rows],
                      refresh=REFRESH if refresh else 0, at=time.strftime("%Y-%m-%d %H:%M:%S %Z"))  # fmt: skip

    def as_rich(self) -> Any:
        """A table for a terminal: at most SHOWN rows, unfinished members first."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        order = sorted(self.rows, key=lambda row: (row.state == "done", row.state == "queued"))
        shown = set(map(id, order[:SHOWN]))
        rows = [row for row in self.rows if id(row) in shown]
        cells = [self.cells(row) for row in rows]
        columns = ["member", *self.keys, *(c for c in COLUMNS if any(cell[c] for cell in cells))]
        table = RichTable(title=self.title, box=None, padding=(0, 1), title_justify="left")
        for column in columns:
            side = "right" if column in ("step", "rate", "left") else "left"
            table.add_column(column, no_wrap=column != "error", justify=side)
        for row, cell in zip(rows, cells, strict=True):
            table.add_row(*(Text(cell[c], COLOURS.get(row.state, "") if c == "state" else "") for c in columns))
        more = [f"and {len(self.rows) - len(rows)} more"] if len(rows) < len(self.rows) else []
        return Group(table, *map(Text, [*more, self.summary, *self.notes]))


def render(template: str, **content: Any) -> str:
    """Render a template of this package with the report's base and style."""
    environment = Environment(loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    style = environment.loader.get_source(environment, "style.css")[0]
    return environment.get_template(template).render(style=Markup(style), **content)


def duration(seconds: float | None) -> str:
    """Seconds as 3:05 or 2:03:05."""
    if seconds is None:
        return ""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
