"""The check of docstrings, comments and messages that `make lint` runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / ".ci" / "words.py"


@pytest.fixture(scope="module")
def words():
    spec = importlib.util.spec_from_file_location("words", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["words"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "source, line, finding",
    [
        ('"""Reads what hangs on the seed."""', 1, "hangs on"),
        ("x = 1\ny = 2  # written beside it", 2, "beside"),
        ('raise ValueError("a bad file: mend it")', 1, "mend"),
        ('raise ValueError(f"a bad {1}, told apart")', 1, "told"),
        ('def f(a):\n    """What a is."""', 2, "fragment"),
        ("found = []", 1, "found"),
        ('def f(a, b, c):\n    """Add."""', 1, "Args"),
        ('class A:\n    """An A."""\n\n    def __init__(self, a, b, c):\n        self.a = a', 4, "Args"),
    ],
)
def test_a_finding_names_its_line(words, tmp_path, source, line, finding):
    path = tmp_path / "module.py"
    path.write_text(source + "\n")
    first = next(words.findings(path))
    assert first.startswith(f"{line}: ") and finding in first


@pytest.mark.parametrize(
    "source",
    [
        '"""Raises FileNotFoundError if the file is not found; foundation, besides, amend."""',
        'KEY = "found"',  # a key of a file, not prose
        'def f(a, b, c):\n    """Add.\n\n    Args:\n        a: One.\n        b: Two.\n        c: Three.\n    """',
        "def _f(a, b, c): ...",
        "def f(self, a, b): ...",
    ],
)
def test_plain_english_passes(words, tmp_path, source):
    path = tmp_path / "module.py"
    path.write_text(source + "\n")
    assert not list(words.findings(path))


def test_code_and_inline_code_of_other_files(words, tmp_path):
    markdown, config = tmp_path / "a.md", tmp_path / "a.yaml"
    markdown.write_text("The key `found` is fine.\nWhat is told is not.\n")
    config.write_text("found: 1  # computed anew\n")
    assert [line.split(":")[0] for line in words.findings(markdown)] == ["2"]
    assert "anew" in next(words.findings(config))


def test_functions_of_tests_need_no_args_section(words, tmp_path, monkeypatch):
    monkeypatch.setattr(words, "ROOT", tmp_path)
    source = 'def f(a, b, c):\n    """Add what is found."""\n'
    for folder, count in (("tests/eval", 1), (".ci", 1), ("eval", 2)):
        path = tmp_path / folder / "module.py"
        path.parent.mkdir(parents=True)
        path.write_text(source)
        findings = list(words.findings(path))
        assert len(findings) == count and "found" in findings[0] and ("Args" in findings[-1]) == (count == 2), folder


def test_tests_and_scripts_are_checked_by_default(words):
    names = {path.relative_to(words.ROOT).as_posix() for path in words.tracked()}
    assert {"tests/conftest.py", ".ci/lowest.py", "ragaf_exp/run.py", "eval/registry.py", "README.md"} <= names
    assert not names & set(words.QUOTING)


@pytest.mark.long
def test_no_tracked_file_has_a_finding(words, capsys):
    assert words.main([]) == 0, capsys.readouterr().out
    assert words.main([str(PATH)]) == 1  # the list of banned words itself
