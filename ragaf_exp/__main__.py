"""Lists the commands: python -m ragaf_exp."""

from __future__ import annotations

import ast
from pathlib import Path

from ragaf_exp.core.resources import PACKAGE

COMMANDS = (
    "ragaf_exp.run", "ragaf_exp.sample", "ragaf_exp.studio", "eval", "ragaf_exp.report", "ragaf_exp.plan",
    "ragaf_exp.plan.flops", "ragaf_exp.sweep", "ragaf_exp.export", "ragaf_exp.evaluation.controls",
    "ragaf_exp.evaluation.editing", "ragaf_exp.evaluation.painting", "ragaf_exp.commands.cache",
    "ragaf_exp.commands.cache.features", "ragaf_exp.commands.extractor_sheet", "ragaf_exp.commands.region_survey",
    "ragaf_exp.commands.size_survey", "ragaf_exp.commands.pace", "ragaf_exp.audit", "ragaf_exp.bench", "eval.damage",
    "eval.export", "eval.features.train_embedded",
)  # fmt: skip
DOCUMENTED = {"eval": "ragaf_exp.commands.evaluate"}  # command -> the module that holds its docstring


def summary(command: str) -> str:
    """The first line of a command's help, read without importing it."""
    base = PACKAGE.parent.joinpath(*DOCUMENTED.get(command, command).split("."))
    path = base / "__main__.py" if base.is_dir() else base.with_suffix(".py")
    return (ast.get_docstring(ast.parse(Path(path).read_text())) or "").partition("\n")[0]


def main() -> None:
    width = max(map(len, COMMANDS))
    print("python -m COMMAND [--help] [KEY=VALUE ...]\n")
    for command in COMMANDS:
        print(f"  {command:{width}}  {summary(command)}")


if __name__ == "__main__":
    main()
