"""Looks at a sweep's folder, once or until all its members are over."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.printable import printable
from ragaf_exp.sweep.ledger import Record
from ragaf_exp.sweep.status import BAD, rows
from ragaf_exp.sweep.table import Table
from ragaf_exp.sweep.unmanaged import plain_rows

EVERY = 2.0  # seconds between looks
WIDE = 240  # columns where output is no terminal
QUIET = 30.0  # and between lines where output is no terminal


def load(home: Path) -> Table:
    """The table of a sweep, or of any folder of run folders. UserError where it holds neither."""
    record = Record(home)
    found, notes = rows(record) if record.exists else (plain_rows(home), [])
    if not found:
        raise UserError(f"{home}: holds no sweep and no run folder")
    return Table(printable(home.name), found, notes)


def exit_code(table: Table) -> int:
    """Exit status: 1 where a member failed and nothing continues it."""
    return int(any(row.state in BAD for row in table.rows))


def all_finished(table: Table) -> bool:
    return all(row.state in (*BAD, "done") for row in table.rows)


def watch(home: Path) -> int:
    """One table, kept up to date until every member is over. Leaving it (Ctrl-C) ends nothing."""
    table = load(home)
    try:
        table = _live(home, table) if sys.stdout.isatty() else _lines(home, table)
    except KeyboardInterrupt:
        print(f"\nit goes on without this; python -m ragaf_exp.sweep status {home}, or cancel {home}")
        return 130
    return exit_code(table)


def _live(home: Path, table: Table) -> Table:
    from rich.live import Live

    with Live(table.as_rich(), auto_refresh=False) as live:
        while not all_finished(table):
            time.sleep(EVERY)
            table = load(home)
            live.update(table.as_rich(), refresh=True)
    return table


def _lines(home: Path, table: Table) -> Table:
    """For a log: one line each time something changed, at most every QUIET seconds; the table at the end."""
    told, said = "", -QUIET
    while not all_finished(table):
        if table.summary != told and time.monotonic() - said >= QUIET:
            told, said = table.summary, time.monotonic()
            print(told, flush=True)
        time.sleep(EVERY)
        table = load(home)
    show(table)
    return table


def show(table: Table) -> None:
    """On a terminal as wide as it is, elsewhere so wide that lines stay whole."""
    from rich.console import Console

    console = Console()
    Console(width=console.width if console.is_terminal else WIDE).print(table.as_rich())
