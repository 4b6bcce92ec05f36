"""Exports a trained run as files that diffusers, ComfyUI, A1111, Forge and this suite load.

    python -m ragaf_exp.export run=DIR out=DIR [kinds='[diffusers,controlnet,adapter,lora,checkpoint,onnx,run]']
        [half=true] [stage=NAME] [weights=all] [license=ID]

kinds: what is written; by default everything that the run can be, except onnx. diffusers: the pipeline with its regions.
controlnet, adapter, lora: networks for other tools, as folders of diffusers and as single files. checkpoint: Stable
Diffusion with the trained UNet as one file. onnx: one denoising step (needs `pip install "ragaf_exp[onnx]"`). run: a run
folder with the averaged weights alone.
half: stores weights as float16. stage: whose networks are exported. weights=all: also copies weights that the run did not
change, which are otherwise named by source and checksum. license: the identifier that the model card states.

The folder is written whole or not at all. Every file is read back and compared with the run before. Nothing is uploaded.
Networks that the config of a run made elsewhere names, such as backbone.source, are used where these arguments repeat
them. Example:

    python -m ragaf_exp.export run=runs/latest out=exported half=true
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.printable import printable
from ragaf_exp.core.writable import check_folder
from ragaf_exp.runs.followed import split_followed

ARGUMENTS: dict[str, type] = {
    "run": str, "out": str, "kinds": list, "half": str, "stage": str, "weights": str, "license": str,
}  # fmt: skip
KINDS = ("diffusers", "controlnet", "adapter", "lora", "checkpoint", "onnx", "run")
CHOICES = {"half": ("false", "true"), "weights": ("own", "all")}
MEGABYTE = 1e6


def main() -> None:
    """Write the export, and print the table and the command that would upload it."""
    arguments, followed = split_followed(sys.argv[1:])
    args = checked(parse_args(arguments, ARGUMENTS))
    out = Path(args["out"]).absolute()
    check_folder(out.parent, "out")
    with stub_optional_imports():  # heavy: only once the arguments are known to be good
        from ragaf_exp.export.kinds import Options
        from ragaf_exp.export.trained import open_run
        from ragaf_exp.export.write import export

    trained = open_run(args["run"], followed)
    if args["stage"] not in ("", *trained.stages):
        raise UserError(f"stage={args['stage']}: must be one of {', '.join(trained.stages)}")
    options = Options(args["half"] == "true", args["stage"], args["weights"] == "all")
    rows = export(trained, out.parent.resolve() / out.name, args["kinds"], options, args["license"])
    print(table(rows))
    print("".join(f"\nchecked {row.path}: {row.checked}" for row in rows if row.checked) + "\n")
    print(f"export {printable(str(out))}\nupload with: hf upload USER/{trained.name} {shlex.quote(str(out))}")


def checked(args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with defaults. Raises UserError if one is missing or has no such value."""
    for key in ("run", "out"):
        if not args.get(key):
            raise UserError(f"{key}=: missing; give run=DIR out=DIR")
    args = {"kinds": [], "license": "", "stage": "", **{key: values[0] for key, values in CHOICES.items()}, **args}
    for key, values in CHOICES.items():
        if args[key] not in values:
            raise UserError(f"{key}={args[key]}: must be one of {', '.join(filter(None, values))}")
    if unknown := [kind for kind in args["kinds"] if kind not in KINDS]:
        raise UserError(f"kinds: {unknown[0]}: unknown; known are {', '.join(KINDS)}")
    return {**args, "kinds": list(dict.fromkeys(args["kinds"]))}


def table(rows: list[Any]) -> str:
    """Lay out what was written, and what was not and why."""
    cells = [("kind", "file", "size", "")]
    for row in rows:
        written = not row.reason
        size = f"{row.size / MEGABYTE:.1f} MB" if written else "-"
        cells.append((row.kind, row.path or "-", size, row.note if written else f"not written: {row.reason}"))
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    return "\n".join(
        f"{kind:{widths[0]}}  {path:{widths[1]}}  {size:>{widths[2]}}  {note}".rstrip() for kind, path, size, note in cells
    )


if __name__ == "__main__":
    guarded(main)
