"""The tables for papers: their content, and that nothing in them is taken for markup."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_run import dump, member

from ragaf_exp.core.markdown import escape
from ragaf_exp.report.catalogue import metric, number
from ragaf_exp.report.compare.compare import compare
from ragaf_exp.report.compare.tables import _tex, latex, markdown

SPECIAL = "50% of a_b & c#d ~ {x} $y^2$ <z> [w] | `v` *u* \\end"


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    return [str(member(tmp_path, "a" * 12)), str(member(tmp_path, "b" * 12, 0.05))]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def figures(text: str) -> dict[tuple[str, str], list[str]]:
    """(group, title) -> cells of the first table."""
    by_title, group = {}, ""
    for line in text.split("\n\n## ")[0].splitlines():
        if line.startswith("| **"):
            group = cells(line)[0].strip("*")
        elif line.startswith("| ") and group:
            title, *rest = cells(line)
            by_title[group, title.rstrip(" ↑↓")] = rest
    return by_title


def test_markdown_holds_what_the_runs_measured(runs):
    text = markdown(compare(runs))
    shown = figures(text)
    for place, run in enumerate(runs):
        metrics = json.loads((Path(run) / "metrics.json").read_text())["metrics"]
        assert len(shown) == len(metrics)
        for name, entry in metrics.items():
            group = "Stage 1" if name.startswith("stage1/") else metric(name).group
            row = shown[group, metric(name).title]
            interval = ", ".join(number(name, v) for v in entry.get("ci95", []))
            assert row[place] == number(name, entry["value"]) + (rf" \[{interval}\]" if interval else "")
            assert row[2] == str(entry["n"])
    assert r"| Sketch F1 ↑ | **+0.050** \[+0.050, +0.050\] | 20 |" in text
    assert r"| Binding accuracy ↑ | 0.000 \[-0.168, +0.168\] | 40 |" in text
    assert {len(cells(line)) for line in text.splitlines() if line.startswith("|")} == {4, 3}


def test_latex_holds_the_same(runs):
    text = latex(compare(runs))
    metrics = json.loads((Path(runs[0]) / "metrics.json").read_text())["metrics"]
    low, high = metrics["sketch_f1"]["ci95"]
    assert rf"Sketch F1 $\uparrow$ & {metrics['sketch_f1']['value']:.3f} {{\scriptsize [{low:.3f}, {high:.3f}]}}" in text
    assert r"Sketch F1 $\uparrow$ & \textbf{+0.050} {\scriptsize [+0.050, +0.050]} & 20 \\" in text
    assert r"Binding accuracy $\uparrow$ & 0.000 {\scriptsize [$-$0.168, +0.168]} & 40 \\" in text
    assert r"FD, embedded $\downarrow$ & $-$0.05 & 20 \\" in text
    for rule in (r"\toprule", r"\bottomrule", r"\end{tabular}"):
        assert text.count(rule) == 2
    assert "booktabs" in text.splitlines()[0]


def test_every_row_of_latex_fills_its_table(runs):
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end", latex(compare(runs)), re.S):
        columns = len(table[0])
        for line in table[1].splitlines():
            if line.endswith(r"\\"):
                span = re.match(r"\\multicolumn\{(\d+)\}", line)
                assert len(re.findall(r"(?<!\\)&", line)) + 1 == columns or int(span[1]) == columns


def test_strange_names_are_text(tmp_path):
    a, b = member(tmp_path, "a" * 12, experiment="50% & #1_{x}"), member(tmp_path, "b" * 12, 0.05)
    for run in (a, b):
        metrics = json.loads((run / "metrics.json").read_text())["metrics"]
        metrics[SPECIAL] = {"value": 1.5, "n": 20, "higher_is_better": True}
        dump(run / "metrics.json", {"schema": 1, "metrics": metrics})
    comparison = compare([str(a), str(b)])
    (line,) = [line for line in latex(comparison).splitlines() if "50" in line and r"\uparrow" in line and "1.500" in line]
    assert r"50\% of a b \& c\#d \textasciitilde{} \{x\} \$y\textasciicircum{}2\$ \textless{}z\textgreater{}" in line
    row = next(line for line in markdown(comparison).splitlines() if line.startswith("| 50"))
    assert len(cells(row)) == 4 and r"&lt;z&gt; \[w\] \| \`v\` \*u\*" in row


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40))
def test_no_text_escapes(text):
    """Characters that LaTeX or Markdown interprets are escaped, and no text breaks its line."""
    tex = _tex(text)
    bare = re.sub(r"\\(?:[{}$&#%_]|[a-z]+\{\})", "", tex)  # without what is escaped
    bare = bare.replace("{[}", "").replace("{]}", "")
    assert not set(bare) & set("\\{}$&#%_~^<>[]\n\r")
    md = escape(text)
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*_\[\]{}~#$]", re.sub(r"\\.", "", md)) and "<" not in md and "\n" not in md
