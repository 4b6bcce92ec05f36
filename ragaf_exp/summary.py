"""What a finished run says on the terminal."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.errors import UserError
from ragaf_exp.files import read_mapping
from ragaf_exp.runfolder import RunFolder

ORDER = (
    "binding_accuracy", "binding_accuracy_heldout", "binding_accuracy_repeated", "leak_rate", "fill_accuracy",
    "sketch_f1", "sketch_f1_shuffled", "chamfer", "pointing_accuracy", "attention_iou", "ssim", "psnr", "mse",
    "seam_ratio",
)  # fmt: skip


def summary_table(metrics: dict[str, dict]) -> str:
    """Figures with their 95 % intervals; stage 1 beside the last stage where both were measured."""
    both = any(name.startswith("stage1/") for name in metrics)
    header = f"{'metric':26}{'stage 1':>26}{'stage 2':>26}{'n':>7}" if both else f"{'metric':26}{'value':>26}{'n':>7}"
    lines = [header, "-" * len(header)]
    names = dict.fromkeys([*ORDER, *(name.removeprefix("stage1/") for name in metrics)])
    for name in names:
        cells = [metrics.get(f"stage1/{name}"), metrics.get(name)] if both else [metrics.get(name)]
        if any(cells):
            n = next(c for c in reversed(cells) if c)["n"]
            lines.append(f"{name:26}" + "".join(f"{_cell(c):>26}" for c in cells) + f"{n:>7}")
    return "\n".join(lines)


def print_summary(folder: RunFolder) -> None:
    _print(read_mapping(folder.metrics, 1), folder.metrics)
    print(f"run     {folder.path}\nfigures {folder.metrics}\nreport  {folder.report}")


def print_figures(content: dict, out: Path) -> None:
    """Of a set of images."""
    _print(content, out)
    print(f"figures {out}")


def _print(content: dict, path: Path) -> None:
    try:
        table = summary_table(content["metrics"])
        said = [f"warning: {text}" for text in content.get("warnings", [])]
        said += [f"{name}: unavailable: {reason}" for name, reason in content.get("unavailable", {}).items()]
        noted = {m["warning"]: name for name, m in content["metrics"].items() if "warning" in m}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: damaged; python -m eval writes it again") from error
    print(f"\n{table}\n")
    for text in [*said, *(f"{name}: {text}" for text, name in noted.items())]:
        print(text)


def _cell(figure: dict | None) -> str:
    if figure is None:
        return ""
    low, high = figure["ci95"]
    return f"{figure['value']:.3g} [{low:.3g}, {high:.3g}]"
