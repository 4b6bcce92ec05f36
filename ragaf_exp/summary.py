"""What a finished run says on the terminal."""

from __future__ import annotations

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
    header = f"{'metric':26}{'stage 1':>22}{'stage 2':>22}{'n':>7}" if both else f"{'metric':26}{'value':>22}{'n':>7}"
    lines = [header, "-" * len(header)]
    for name in ORDER:
        cells = [metrics.get(f"stage1/{name}"), metrics.get(name)] if both else [metrics.get(name)]
        if any(cells):
            n = next(c for c in reversed(cells) if c)["n"]
            lines.append(f"{name:26}" + "".join(f"{_cell(c):>22}" for c in cells) + f"{n:>7}")
    return "\n".join(lines)


def print_summary(folder: RunFolder) -> None:
    content = read_mapping(folder.metrics, 1)
    try:
        table = summary_table(content["metrics"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder.metrics}: damaged; python -m eval run={folder.path} writes it again") from error
    print(f"\n{table}\n")
    print(f"run     {folder.path}\nfigures {folder.metrics}\nreport  {folder.report}")


def _cell(figure: dict | None) -> str:
    if figure is None:
        return ""
    low, high = figure["ci95"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"
