"""Submits and monitors a sweep: many runs that answer one question.

    python -m ragaf_exp.sweep submit FILE [launcher=slurm|local] [processes=2] [wait=true|false] [overrides]
    python -m ragaf_exp.sweep status DIR [format=text|html|json] [out=FILE] [live=true|false]
    python -m ragaf_exp.sweep retry DIR [launcher=...] [processes=2] [code=snapshot|now] [setup=site|recorded] [wait=...]
    python -m ragaf_exp.sweep cancel DIR
    python -m ragaf_exp.sweep report DIR [out=FILE.html]
    python -m ragaf_exp.sweep search FILE trials=20 [launcher=...] [processes=2] [overrides]

FILE: a sweep file, e.g. sweeps/fusion.yaml. DIR: the sweep's folder, runs/NAME. Exit status: 0 if nothing failed, 1 if a
member failed, 2 for bad input. Example:

    python -m ragaf_exp.sweep submit sweeps/fusion.yaml launcher=local processes=2
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_text
from ragaf_exp.sweep.definition import read_sweep
from ragaf_exp.sweep.ledger import open_record
from ragaf_exp.sweep.members import compose_members
from ragaf_exp.sweep.monitor import exit_code, load, show, watch
from ragaf_exp.sweep.report import write_sweep_report
from ragaf_exp.sweep.submit import cancel, launcher_of, retry, submit, summary_of

FORMATS = ("text", "html", "json")
OWN = {"launcher": str, "processes": int, "wait": str}  # arguments of submit that are not overrides


def command_submit(arguments: Sequence[str]) -> int:
    """Queue a sweep's members, and wait for them if they run on this machine."""
    if not arguments or "=" in arguments[0].partition("/")[0]:
        raise UserError("submit: name a sweep first, e.g. sweeps/fusion.yaml")
    own = [argument for argument in arguments[1:] if argument.partition("=")[0] in OWN]
    launch = _settings(own)
    overrides = [argument for argument in arguments[1:] if argument not in own]
    members = compose_members([*read_sweep(arguments[0]).all_overrides, *overrides])
    record, jobs = submit(members, *launch[:2])
    print(summary_of(jobs, len(members)), record.home, sep="\n")
    return _wait_if(record.home, launch[2])


def command_retry(arguments: Sequence[str]) -> int:
    """Queue the failed members again."""
    record = open_record(_folder(arguments))
    options = parse_args(arguments[1:], {**OWN, "code": str, "setup": str})
    code = _one_of("code", options.get("code", "snapshot"), ("snapshot", "now"))
    setup = _one_of("setup", options.get("setup", "site"), ("site", "recorded"))
    launch = _settings([argument for argument in arguments[1:] if argument.partition("=")[0] in OWN])
    jobs = retry(record, *launch[:2], fresh=code == "now", recorded=setup == "recorded")
    print(summary_of(jobs, len(record.members())))
    return _wait_if(record.home, launch[2])


def command_status(arguments: Sequence[str]) -> int:
    """Show the table; on a terminal, keep it up to date until all members have ended."""
    options = parse_args(arguments[1:], {"format": str, "out": str, "live": str})
    form = _one_of("format", options.get("format", "text"), FORMATS)
    live = _flag("live", options.get("live"), form == "text" and "out" not in options and sys.stdout.isatty())
    home = Path(_folder(arguments)).absolute().resolve()
    if live:
        return watch(home)
    table = load(home)
    if form == "text" and "out" not in options:
        show(table)
        return exit_code(table)
    content = {"html": table.as_html, "json": lambda: json.dumps(table.as_json(), indent=1) + "\n",
               "text": lambda: table.summary + "\n"}[form]()  # fmt: skip
    if "out" in options:
        write_text(Path(options["out"]), content)
    print(options.get("out", content.rstrip()))
    return exit_code(table)


def command_cancel(arguments: Sequence[str]) -> int:
    """Cancel the members that wait or run."""
    record = open_record(_folder(arguments))
    parse_args(arguments[1:], {})
    print(f"cancelled {len(cancel(record))} members; retry resumes them")
    return 0


def command_report(arguments: Sequence[str]) -> int:
    """Write the report, in which missing members are marked."""
    home = Path(_folder(arguments)).absolute().resolve()
    options = parse_args(arguments[1:], {"out": str})
    print(*write_sweep_report(home, Path(options["out"]) if "out" in options else None), sep="\n")
    return 0


def command_search(arguments: Sequence[str]) -> int:
    """Search hyper-parameters: choose each member by the metrics of earlier ones."""
    if not arguments or "=" in arguments[0].partition("/")[0]:
        raise UserError("search: name a sweep with search: first, e.g. sweeps/rates.yaml")
    own = [argument for argument in arguments[1:] if argument.partition("=")[0] in (*OWN, "trials")]
    launcher, processes, _ = _settings([argument for argument in own if not argument.startswith("trials=")])
    counts = parse_args([argument for argument in own if argument.startswith("trials=")], {"trials": int})
    overrides = [argument for argument in arguments[1:] if argument not in own]
    from ragaf_exp.sweep.search import search

    return search(read_sweep(arguments[0]), overrides, launcher, processes, counts.get("trials", 20))


def _wait_if(home: Path, wait: bool) -> int:
    if wait:
        return watch(home)
    print(f"python -m ragaf_exp.sweep status {home}")
    return 0


def _settings(arguments: Sequence[str]) -> tuple[str, int, bool]:
    """(launcher, processes, wait); by default, wait for a local sweep but not for one on SLURM."""
    options = parse_args(arguments, OWN)
    launcher = launcher_of(options.get("launcher", ""))
    if (processes := options.get("processes", 2)) < 1:
        raise UserError(f"processes={processes}: must be at least 1")
    return launcher, processes, _flag("wait", options.get("wait"), launcher == "local")


def _folder(arguments: Sequence[str]) -> str:
    if not arguments or "=" in arguments[0]:
        raise UserError("DIR: missing; give a sweep's folder, e.g. runs/fusion")
    if not Path(arguments[0]).is_dir():
        raise UserError(f"{arguments[0]}: no such folder; a sweep's folder is runs/NAME")
    return arguments[0]


def _one_of(key: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise UserError(f"{key}={value}: must be {' or '.join(allowed)}")
    return value


def _flag(key: str, value: str | None, default: bool) -> bool:
    return default if value is None else _one_of(key, value, ("true", "false")) == "true"


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "submit": command_submit, "status": command_status, "retry": command_retry, "cancel": command_cancel,
    "report": command_report, "search": command_search,
}  # fmt: skip


def main() -> None:
    """Run the command; exit with status 1 if a member failed."""
    name, *arguments = sys.argv[1:] or ["?"]
    if name not in COMMANDS:
        raise UserError(f"{name}: not a command of sweep; known are {', '.join(COMMANDS)}")
    if status := COMMANDS[name](arguments):
        sys.exit(status)


if __name__ == "__main__":
    guarded(main)
