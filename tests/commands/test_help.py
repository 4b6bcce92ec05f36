"""--help on every command line, and the list of commands."""

from __future__ import annotations

import importlib
import sys

import pytest

from ragaf_exp.__main__ import COMMANDS, DOCUMENTED, main, summary
from ragaf_exp.config.command_line import guarded

pytestmark = pytest.mark.process


def entry(command: str):
    """The function that a command calls, and its module."""
    module = importlib.import_module(DOCUMENTED.get(command, command))
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{command}.__main__")
    return getattr(module, "command_line", None) or module.main


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_prints_usage_options_and_an_example(command, option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["program", option, "run=nowhere"])
    guarded(entry(command))
    out, err = capsys.readouterr()
    assert err == "" and out.startswith(summary(command)) and len(summary(command)) > 20
    assert out.count(f"python -m {command} ") >= 2 and "Example:" in out, "usage, then an example"


def test_the_list_names_every_command(capsys):
    main()
    out = capsys.readouterr().out
    assert all(f"  {command} " in out and summary(command) in out for command in COMMANDS)


def test_run_help_in_a_separate_process(process, tmp_path):
    done = process("ragaf_exp.run", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "python -m ragaf_exp.run" in done.stdout and not list(tmp_path.iterdir())
