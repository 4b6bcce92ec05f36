"""The summary of a finished run or evaluation on the terminal."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.config.stages import IMAGES, title_of
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping
from ragaf_exp.report.catalogue import ordered, plain, stage_prefixes
from ragaf_exp.runs.folder import RunFolder

WIDTH = 30  # of a column: a figure with its interval


def summary_table(metrics: dict[str, dict]) -> str:
    """Figures with their 95 % intervals, in a column for each stage if several were measured."""
    earlier = stage_prefixes(metrics)
    titles = [title.lower() for title in (*earlier.values(), title_of(IMAGES[len(earlier)]))] if earlier else ["value"]
    header = f"{'metric':28}" + "".join(f"{title:>{WIDTH}}" for title in titles) + f"{'n':>7}"
    lines = [header, "-" * len(header)]
    for name in ordered(map(plain, metrics)):
        cells = [metrics.get(prefix + name) for prefix in (*earlier, "")]
        n = next(c for c in reversed(cells) if c)["n"]
        lines.append(f"{name:28}" + "".join(f"{_cell(c):>{WIDTH}}" for c in cells) + f"{n:>7}")
    return "\n".join(lines)


def print_summary(folder: RunFolder) -> None:
    """Print a run's figures and the paths of its folder, figures and report."""
    _print(read_mapping(folder.metrics, 1), folder.metrics)
    print(f"run     {folder.path}\nfigures {folder.metrics}\nreport  {folder.report}")


def print_figures(content: dict, out: Path) -> None:
    """Print the figures of a set of images and their file's path."""
    _print(content, out)
    print(f"figures {out}")


def _print(content: dict, path: Path) -> None:
    try:
        table = summary_table(content["metrics"])
        lines = [f"warning: {text}" for text in content.get("warnings", [])]
        lines += [f"{name}: unavailable: {reason}" for name, reason in content.get("unavailable", {}).items()]
        deferred = {m["warning"]: plain(name) for name, m in content["metrics"].items() if "warning" in m}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: damaged; python -m eval writes it again") from error
    print(f"\n{table}\n")
    for text in [*lines, *(f"{name}: {text}" for text, name in deferred.items())]:
        print(text)


def _cell(figure: dict | None) -> str:
    if figure is None:
        return ""
    low, high = figure["ci95"]
    return f"{figure['value']:.3g} [{low:.3g}, {high:.3g}]"
