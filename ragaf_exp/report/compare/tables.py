"""Tables for papers, in Markdown and in LaTeX with booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ragaf_exp.core.markdown import bullets, escape
from ragaf_exp.core.markdown import table as markdown_table
from ragaf_exp.report.catalogue import head, number
from ragaf_exp.report.compare.caveats import caveats, measured_with
from ragaf_exp.report.compare.compare import Cell, Comparison

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "[": "{[}", "]": "{]}", '"': "''", "…": r"\ldots{}", "–": "--",
}  # fmt: skip
PAGE = 48  # lines of a tabular
ARROWS = {True: ("↑", r"$\uparrow$"), False: ("↓", r"$\downarrow$"), None: ("", "")}  # Markdown's and LaTeX's


@dataclass
class TextCell:
    """A figure as text."""

    value: str
    interval: str = ""  # "low, high"
    note: str = ""  # instead of an interval
    strong: bool = False


@dataclass
class TextTable:
    """A table as text: rows (title, whether higher is better, cells, n) in titled groups."""

    title: str
    columns: list[str]
    groups: dict[str, list[tuple[str, bool | None, list[TextCell], str]]] = field(default_factory=dict)


def text_tables(comparison: Comparison) -> list[TextTable]:
    """A table of all figures, and one of the differences to the first run, if there are any."""
    letters = [member.letter for member in comparison.members]
    figures = TextTable("Figures with 95 % intervals", letters)
    differences = TextTable(f"Differences to {letters[0]}, paired by item", letters[1:])
    for row in comparison.rows:
        title = head(row.name)["title"]
        n = next((f"{cell.entry['n']}" for cell in row.cells if cell and cell.entry.get("n") is not None), "")
        cells = [_figure(row.name, cell) for cell in row.cells]
        figures.groups.setdefault(row.group, []).append((title, row.better, cells, n))
        if any(cell and (cell.difference or cell.gap is not None) for cell in row.cells):
            cells = [_difference(row.name, cell) for cell in row.cells[1:]]
            differences.groups.setdefault(row.group, []).append((title, row.better, cells, n))
    return [table for table in (figures, differences) if table.groups]


def _figure(name: str, cell: Cell | None) -> TextCell:
    if cell is None:
        return TextCell("–")
    interval = cell.entry.get("ci95")
    shown = ", ".join(number(name, v, unit=False) for v in interval) if interval else ""
    return TextCell(number(name, cell.entry["value"]), shown)


def _difference(name: str, cell: Cell | None) -> TextCell:
    if cell is None or (cell.difference is None and cell.gap is None):
        return TextCell("–", note=cell.note if cell else "")
    if cell.difference is None:
        return TextCell(number(name, cell.gap, sign=True))
    d = cell.difference
    low, high = (number(name, v, unit=False, sign=True) for v in (d.low, d.high))
    return TextCell(number(name, d.value, sign=True), f"{low}, {high}", strong=d.clear)


def legend(comparison: Comparison) -> list[str]:
    """The run of each letter, missing figures, and caveats."""
    lines = [
        f"{member.letter}: {member.name}" + (f", missing ({member.missing})" if member.missing else "")
        for member in comparison.all_runs
    ]
    return [*lines, *caveats(comparison), *measured_with(comparison).lines()]


def markdown(comparison: Comparison) -> str:
    """Tables in GitHub's Markdown; a difference whose interval excludes 0 is bold."""
    parts = [f"## {escape(table.title)}\n\n{_md_table(table)}" for table in text_tables(comparison)]
    return "\n\n".join([*parts, bullets(legend(comparison))]) + "\n"


def _md_table(table: TextTable) -> str:
    lines: list[list[str]] = []
    for group, rows in table.groups.items():
        lines.append([f"**{escape(group)}**", *[""] * (len(table.columns) + 1)])
        for title, sense, cells, n in rows:
            lines.append([f"{escape(title)} {ARROWS[sense][0]}".rstrip(), *map(_md_cell, cells), n])
    return markdown_table(["", *map(escape, table.columns), "n"], lines)


def _md_cell(cell: TextCell) -> str:
    value = f"**{escape(cell.value)}**" if cell.strong else escape(cell.value)
    return f"{value} {escape(f'[{cell.interval}]' if cell.interval else cell.note)}".strip()


def latex(comparison: Comparison) -> str:
    """LaTeX tabulars to include, each at most a page high; a difference whose interval excludes 0 is bold."""
    parts = ["% needs \\usepackage{booktabs}; the file is UTF-8"]
    parts += [_tabular(table, groups) for table in text_tables(comparison) for groups in _pages(table)]
    parts.append("\n".join(f"% {_comment(line)}" for line in legend(comparison)))
    return "\n\n".join(parts) + "\n"


def _pages(table: TextTable) -> Iterator[list[str]]:
    """Titles of the groups on each page, in order."""
    page: list[str] = []
    for group in table.groups:
        if page and sum(2 + len(table.groups[title]) for title in [*page, group]) > PAGE:
            yield page
            page = []
        page.append(group)
    yield page


def _tabular(table: TextTable, groups: list[str]) -> str:
    width = len(table.columns) + 2
    opening = r"\noindent{\footnotesize\setlength{\tabcolsep}{4pt}%"
    lines = [f"% {_comment(table.title)}", opening, rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}", r"\toprule"]
    lines.append(_row(["", *map(_tex, table.columns), "$n$"]))
    for group in groups:
        lines += [r"\midrule", _row([rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_tex(group)}}}}}"])]
        for title, sense, cells, n in table.groups[group]:
            lines.append(_row([f"{_tex(title)} {ARROWS[sense][1]}".rstrip(), *map(_tex_cell, cells), n]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", "}"])


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_cell(cell: TextCell) -> str:
    value = _tex_number(cell.value)
    value = rf"\textbf{{{value}}}" if cell.strong else value
    suffix = f"[{_tex_number(cell.interval)}]" if cell.interval else _tex(cell.note)
    return value + (rf" {{\scriptsize {suffix}}}" if suffix else "")


def _tex_number(text: str) -> str:
    """Escaped text with a mathematical minus before digits."""
    return re.sub(r"-(?=\d)", "$-$", _tex(text))


def _tex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _comment(text: str) -> str:
    return " ".join(text.split())
