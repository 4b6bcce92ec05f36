"""Runs a sweep: many runs as one question.

    python -m ragaf_exp.sweep submit FILE [launcher=slurm|local] [processes=2] [wait=true|false] [overrides]
    python -m ragaf_exp.sweep status DIR [format=text|html|json] [out=FILE] [live=true|false]
    python -m ragaf_exp.sweep retry DIR [launcher=...] [processes=2] [code=snapshot|now] [setup=site|recorded] [wait=...]
    python -m ragaf_exp.sweep cancel DIR
    python -m ragaf_exp.sweep report DIR [out=FILE.html]
    python -m ragaf_exp.sweep search FILE trials=20 [launcher=...] [processes=2] [overrides]

FILE: a sweep file, e.g. sweeps/fusion.yaml. DIR: runs/NAME of the sweep. Exit status: 0 where nothing failed, 1 where a
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
from ragaf_exp.sweep.submit import cancel, described, launcher_of, retry, submit

FORMATS = ("text", "html", "json")
OWN = {"launcher": str, "processes": int, "wait": str}  # arguments of submit that are no overrides


def command_submit(arguments: Sequence[str]) -> int:
    """Queue a sweep's members; wait for them where they run on this machine."""
    if not arguments or "=" in arguments[0].partition("/")[0]:
        raise UserError("submit: name a sweep first, as sweeps/fusion.yaml")
    own = [word for word in arguments[1:] if word.partition("=")[0] in OWN]
    settings = _settings(own)
    members = compose_members([*read_sweep(arguments[0]).words, *(w for w in arguments[1:] if w not in own)])
    record, jobs = submit(members, *settings[:2])
    print(described(jobs, len(members)), record.home, sep="\n")
    return _until_over(record.home, settings[2])


def command_retry(arguments: Sequence[str]) -> int:
    """Queue again what failed."""
    record = open_record(_folder(arguments))
    known = parse_args(arguments[1:], {**OWN, "code": str, "setup": str})
    code = _one_of("code", known.get("code", "snapshot"), ("snapshot", "now"))
    setup = _one_of("setup", known.get("setup", "site"), ("site", "recorded"))
    settings = _settings([word for word in arguments[1:] if word.partition("=")[0] in OWN])
    jobs = retry(record, *settings[:2], fresh=code == "now", recorded=setup == "recorded")
    print(described(jobs, len(record.members())))
    return _until_over(record.home, settings[2])


def command_status(arguments: Sequence[str]) -> int:
    """Show the table; on a terminal until all members are over."""
    known = parse_args(arguments[1:], {"format": str, "out": str, "live": str})
    form = _one_of("format", known.get("format", "text"), FORMATS)
    live = _flag("live", known.get("live"), form == "text" and "out" not in known and sys.stdout.isatty())
    home = Path(_folder(arguments)).absolute().resolve()
    if live:
        return watch(home)
    table = load(home)
    if form == "text" and "out" not in known:
        show(table)
        return exit_code(table)
    content = {"html": table.as_html, "json": lambda: json.dumps(table.as_json(), indent=1) + "\n",
               "text": lambda: table.summary + "\n"}[form]()  # fmt: skip
    if "out" in known:
        write_text(Path(known["out"]), content)
    print(known.get("out", content.rstrip()))
    return exit_code(table)


def command_cancel(arguments: Sequence[str]) -> int:
    """End what waits or runs."""
    record = open_record(_folder(arguments))
    parse_args(arguments[1:], {})
    print(f"cancelled {len(cancel(record))} members; retry continues them")
    return 0


def command_report(arguments: Sequence[str]) -> int:
    """Write the report; what is missing is marked."""
    home = Path(_folder(arguments)).absolute().resolve()
    known = parse_args(arguments[1:], {"out": str})
    print(*write_sweep_report(home, Path(known["out"]) if "out" in known else None), sep="\n")
    return 0


def command_search(arguments: Sequence[str]) -> int:
    """Choose members by the figures of those before them."""
    if not arguments or "=" in arguments[0].partition("/")[0]:
        raise UserError("search: name a sweep with search: first, as sweeps/rates.yaml")
    own = [word for word in arguments[1:] if word.partition("=")[0] in (*OWN, "trials")]
    launcher, processes, _ = _settings([word for word in own if not word.startswith("trials=")])
    trials = parse_args([word for word in own if word.startswith("trials=")], {"trials": int}).get("trials", 20)
    words = [word for word in arguments[1:] if word not in own]
    from ragaf_exp.sweep.search import search

    return search(read_sweep(arguments[0]), words, launcher, processes, trials)


def _until_over(home: Path, wait: bool) -> int:
    if wait:
        return watch(home)
    print(f"python -m ragaf_exp.sweep status {home}")
    return 0


def _settings(words: Sequence[str]) -> tuple[str, int, bool]:
    """(launcher, processes, wait): a local sweep is waited for, one on SLURM is not."""
    known = parse_args(words, OWN)
    launcher = launcher_of(known.get("launcher", ""))
    if (processes := known.get("processes", 2)) < 1:
        raise UserError(f"processes={processes}: must be at least 1")
    return launcher, processes, _flag("wait", known.get("wait"), launcher == "local")


def _folder(arguments: Sequence[str]) -> str:
    if not arguments or "=" in arguments[0]:
        raise UserError("DIR: missing; give a sweep's folder, as runs/fusion")
    if not Path(arguments[0]).is_dir():
        raise UserError(f"{arguments[0]}: no such folder; a sweep's is runs/<its name>")
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
    """Dispatch; the exit status says whether a member failed."""
    name, *arguments = sys.argv[1:] or ["?"]
    if name not in COMMANDS:
        raise UserError(f"{name}: no command of sweep; known are {', '.join(COMMANDS)}")
    if status := COMMANDS[name](arguments):
        sys.exit(status)


if __name__ == "__main__":
    guarded(main)
