"""Measures a run of paint: wrong hints against the caption by guidance, and SDEdit with the same network.

    python -m ragaf_exp.evaluation.painting run=DIR [items=100] [out=FILE.json]
        [guidance='[1,2,4]'] [starts='[0.4,0.6,0.8]']

Test items are sampled with the same noise. guidance: text guidance scales at which all hints have wrong colours. starts:
shares of the noise schedule at which SDEdit (Meng et al. 2022) starts from the image of flood-filled hints, with the hints
dropped. Writes JSON, by default painting.json in the run folder, and prints a table. Example:

    python -m ragaf_exp.evaluation.painting run=runs/latest items=50 starts='[0.5]'
"""

from __future__ import annotations

import sys
from pathlib import Path

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.paths import split
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.writable import check_file, check_folder
from ragaf_exp.runs.followed import split_followed

ITEMS = 100
CURVES = {"guidance": ("[1,2,4]", 0.0, 100.0), "starts": ("[0.4,0.6,0.8]", 0.001, 1.0)}  # default, lowest, highest value


def main() -> None:
    arguments, followed = split_followed(sys.argv[1:])
    args = parse_args(arguments, {"run": str, "out": str, "items": int, "guidance": str, "starts": str})
    if "run" not in args:
        raise UserError("run=?: missing; give run=DIR, as in run=runs/latest")
    if (items := args.get("items", ITEMS)) < 2:
        raise UserError(f"items={items}: must be at least 2")
    curves = {name: numbers(name, args.get(name, default), low, high) for name, (default, low, high) in CURVES.items()}
    run = Path(args["run"])
    out = Path(args["out"]) if "out" in args else run / "painting.json"
    check_file(out, "out") if "out" in args else check_folder(run, "run", "give out=FILE.json")
    with stub_optional_imports():  # heavy: only once the arguments are checked
        from ragaf_exp.evaluation.painting.measure import measure_run

    print(measure_run(run, out, items, curves["guidance"], curves["starts"], followed))
    print(out)


def numbers(name: str, text: str, low: float, high: float) -> list[float]:
    """Parse a list of numbers.

    Args:
        name: Of the argument.
        text: As "[1,2.5]"; "[]" for none.
        low: Smallest allowed value.
        high: Largest allowed value.

    Raises:
        UserError: One of them is no number, or out of range.
    """
    try:
        values = [float(part) for part in split(text.strip("[]")) if part]
    except ValueError:
        raise UserError(f"{name}={text}: must be numbers, as [1,2]") from None
    if not all(low <= value <= high for value in values):
        raise UserError(f"{name}={text}: each must be between {low:g} and {high:g}")
    return values


if __name__ == "__main__":
    guarded(main)
