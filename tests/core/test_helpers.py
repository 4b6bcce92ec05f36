"""Digests, processes and Markdown: each helper is the only one of its kind."""

from __future__ import annotations

import math
import os
import re
import subprocess
from pathlib import Path

import pytest

from eval.statistics.bootstrap import student_interval
from ragaf_exp.core import processes
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.markdown import bullets, escape, table

ROOT = Path(__file__).parents[2]


def test_digests_are_those_that_name_folders_of_earlier_versions():
    assert json_digest({"b": 1, "a": [1, "é"]}) == json_digest({"a": [1, "é"], "b": 1}) == "dae7009e2bf6baa7"
    assert json_digest({"a": [1, "é"], "b": 1}, 12) == "dae7009e2bf6"


def test_a_process_and_a_later_one_of_its_number():
    me, started = os.getpid(), processes.start_of(os.getpid())
    assert processes.alive(me) and processes.alive(me, started) and not processes.alive(me, started + 1)
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert not processes.alive(gone.pid) and processes.start_of(gone.pid) is None


def test_processes_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "PROC", tmp_path)
    assert processes.start_of(os.getpid()) is None and processes.boot() == ""
    assert processes.alive(os.getpid()) and not processes.exists(2**40)


def test_a_table():
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | --: |\n| x | 1 |"
    assert table(["a", "b"], [], text=2).endswith("| --- | --- |")
    assert bullets(["a|b", "<i>"]) == "- a\\|b\n- &lt;i&gt;" and escape("a\n b") == "a b"


def test_an_interval_of_students_t():
    mean, half = student_interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(student_interval([0.5])[1])
    with pytest.raises(ValueError, match="no values"):
        student_interval([])


@pytest.mark.parametrize("pattern, home", [
    (r"sha256\(json\.dumps\(.*sort_keys", "ragaf_exp/core/hashing.py"),
    (r"/proc\"|/proc/\{", "ragaf_exp/core/processes.py"), (r"TORCH_FORCE_WEIGHTS_ONLY_LOAD", "ragaf_exp/core/tensors.py"),
    (r"\"---\"|\| ---", "ragaf_exp/core/markdown.py"),
])  # fmt: skip
def test_each_helper_is_used_in_one_file_only(pattern, home):
    files = [*ROOT.glob("eval/**/*.py"), *ROOT.glob("ragaf_exp/**/*.py")]
    assert [file.relative_to(ROOT).as_posix() for file in files if re.search(pattern, file.read_text())] == [home]
