"""Shows a sweep's table, once or until all its members have ended."""

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

EVERY = 2.0  # seconds between updates
WIDE = 240  # columns if the output is not a terminal
QUIET = 30.0  # seconds between lines if the output is not a terminal


def load(home: Path) -> Table:
    """The table of a sweep, or of any folder of run folders. Raises UserError if it contains neither."""
    record = Record(home)
    members, notes = rows(record) if record.exists else (plain_rows(home), [])
    if not members:
        raise UserError(f"{home}: contains no sweep and no run folder")
    return Table(printable(home.name), members, notes)


def exit_code(table: Table) -> int:
    """1 if a member has failed and nothing resumes it, else 0."""
    return int(any(row.state in BAD for row in table.rows))


def all_finished(table: Table) -> bool:
    return all(row.state in (*BAD, "done") for row in table.rows)


def watch(home: Path) -> int:
    """Keep the table up to date until every member has ended. Ctrl-C leaves the table; the sweep continues."""
    table = load(home)
    try:
        table = _live(home, table) if sys.stdout.isatty() else _lines(home, table)
    except KeyboardInterrupt:
        print(f"\nthe sweep continues; python -m ragaf_exp.sweep status {home}, or cancel {home}")
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
    """For a log: one line per change, at most every QUIET seconds, and the table at the end."""
    printed, printed_at = "", -QUIET
    while not all_finished(table):
        if table.summary != printed and time.monotonic() - printed_at >= QUIET:
            printed, printed_at = table.summary, time.monotonic()
            print(printed, flush=True)
        time.sleep(EVERY)
        table = load(home)
    show(table)
    return table


def show(table: Table) -> None:
    """Print the table as wide as the terminal, or, without one, so wide that no line is wrapped."""
    from rich.console import Console

    console = Console()
    Console(width=console.width if console.is_terminal else WIDE).print(table.as_rich())
