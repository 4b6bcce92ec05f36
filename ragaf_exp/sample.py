"""Samples images from a trained run, given a sketch and a prompt.

    python -m ragaf_exp.sample run=DIR sketch=FILE 'prompt="..."' out=DIR
        [seed=0] [steps=20] [guidance=3] [strength=0.6] [size=768x512] [attention=true|false]
    python -m ragaf_exp.sample run=DIR batch=FILE out=DIR

batch: a CSV or JSONL file with the columns sketch and prompt; each row gets a folder under out. strength: share of the
noise schedule that stage 2 runs, in (0,1]. size: width x height in pixels, or one number for a square; by default the
size that the run was trained at. The drawing is fitted into it. attention: whether to write attention maps over the
timesteps; by default for a single image only, as it takes seconds. Networks that the config of a run made elsewhere
names, such as backbone.source, are used where these arguments repeat them. Example:

    python -m ragaf_exp.sample run=runs/latest sketch=apple.png 'prompt="a red apple"' out=samples
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.writable import check_folder
from ragaf_exp.data.sizes import parse_size
from ragaf_exp.inference.requests import Request
from ragaf_exp.runs.followed import split_followed

ARGUMENTS = {
    "run": str, "sketch": str, "prompt": str, "out": str, "batch": str, "seed": int, "steps": int, "guidance": float,
    "sketch_guidance": float, "strength": float, "scheduler": str, "polarity": str, "attention": str, "size": str,
}  # fmt: skip
SWITCH = {"true": True, "false": False}
POLARITIES = ("auto", "dark", "light")


def main() -> None:
    arguments, followed = split_followed(sys.argv[1:])
    args = parse_args(arguments, ARGUMENTS)
    check(args)
    check_folder(Path(args["out"]), "out")
    requests = batch_requests(args) if "batch" in args else [single_request(args)]
    with stub_optional_imports():  # heavy: only once the arguments are known to be good
        from ragaf_exp.commands.sample import sample_requests

    began = time.monotonic()
    sample_requests(requests, args, followed)
    place = args["out"] if "batch" in args else requests[0].out
    print(f"{len(requests)} image{'s' * (len(requests) > 1)} in {time.monotonic() - began:.1f} s: {place}")


def check(args: dict[str, Any]) -> None:
    """UserError where an argument is missing or out of range; attention= becomes a bool, size= a height and width."""
    for key in ("run", "out"):
        if not args.get(key):
            raise UserError(f"{key}=: missing; give run=DIR sketch=FILE 'prompt=\"...\"' out=DIR")
    if ("batch" in args) == ("sketch" in args):
        raise UserError("sketch=: give either sketch=FILE with prompt=, or batch=FILE of sketch and prompt")
    ranges = {"steps": (1, 1000), "guidance": (0, 100), "sketch_guidance": (0, 100), "strength": (0.001, 1),
              "seed": (0, 2**63 - 1)}  # fmt: skip
    for key, (low, high) in ranges.items():
        if key in args and not low <= args[key] <= high:
            raise UserError(f"{key}={args[key]}: must be between {low} and {high}")
    if "size" in args:
        args["size"] = parse_size(args["size"])
    if args.get("attention", "true") not in SWITCH:
        raise UserError(f"attention={args['attention']}: must be true or false")
    args["attention"] = SWITCH[args.get("attention", "false" if "batch" in args else "true")]
    if args.get("polarity", "auto") not in POLARITIES:
        raise UserError(f"polarity={args['polarity']}: must be one of {', '.join(POLARITIES)}")


def single_request(args: dict[str, Any]) -> Request:
    from ragaf_exp.data.lengths import shortened

    (prompt,) = shortened([args.get("prompt", "")], "prompt")
    return Request(Path(args["sketch"]), prompt, Path(args["out"]))


def batch_requests(args: dict[str, Any]) -> list[Request]:
    """Rows of a CSV or JSONL; sketch paths are relative to the file's folder."""
    from ragaf_exp.data.lengths import shortened
    from ragaf_exp.data.sources.metadata import read_table
    from ragaf_exp.data.sources.names import Names

    table = Path(args["batch"])
    rows, names = read_table(table, ("sketch", "prompt")), Names(table.parent)
    prompts = shortened([row["prompt"] for row in rows], table)
    return [
        Request(table.parent / (names.find(row["sketch"]) or row["sketch"]), prompt, Path(args["out"]) / f"{i:04d}")
        for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
    ]


if __name__ == "__main__":
    guarded(main)
