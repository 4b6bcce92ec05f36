"""Samples images from a trained run, given a sketch and a prompt.

    python -m ragaf_exp.sample run=DIR sketch=FILE 'prompt="..."' out=DIR
        [seed=0] [steps=20] [guidance=3] [strength=0.6] [attention=true|false] [edits=FILE.json [keep=IMAGE]]
    python -m ragaf_exp.sample run=DIR batch=FILE out=DIR

batch: a CSV or JSONL file with the columns sketch and prompt, and perhaps edits and keep; each row gets a folder under
out. edits: prompts of single regions, as {"regions": [{"at": [0.3, 0.5], "prompt": "green"}]}; a region is named by a
point in it (shares of width and height) or by its "index", which result.json lists with a point of each. Such a region
reads its prompt alone, the others the caption. Further keys of a region: importance (0 to 2; 1 is as trained), outline
(0 to 2, of the sketch there), locked. keep: an image, as an earlier stage2.png, of which only the regions in edits that
are not locked are sampled again; the keys strength (0.7) and grow (0.03 of the side) stand next to "regions".
strength: share of the noise schedule that stage 2 runs, in (0,1]. attention: whether to write attention maps over the
timesteps; by default for a single image only, as it takes seconds. Networks that the config of a run made elsewhere
names, such as backbone.source, are used where these arguments repeat them. Example:

    python -m ragaf_exp.sample run=runs/latest sketch=apple.png 'prompt="a red apple"' out=samples
    python -m ragaf_exp.sample run=runs/latest sketch=apple.png 'prompt="a red apple"' edits=leaf.json \
        keep=samples/stage2.png out=again
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
from ragaf_exp.inference.requests import Request
from ragaf_exp.runs.followed import split_followed

ARGUMENTS = {
    "run": str, "sketch": str, "prompt": str, "out": str, "batch": str, "seed": int, "steps": int, "guidance": float,
    "sketch_guidance": float, "strength": float, "scheduler": str, "polarity": str, "attention": str,
    "edits": str, "keep": str,
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
    """UserError where an argument is missing or out of range; attention= becomes a bool."""
    for key in ("run", "out"):
        if not args.get(key):
            raise UserError(f"{key}=: missing; give run=DIR sketch=FILE 'prompt=\"...\"' out=DIR")
    if ("batch" in args) == ("sketch" in args):
        raise UserError("sketch=: give either sketch=FILE with prompt=, or batch=FILE of sketch and prompt")
    if "keep" in args and "edits" not in args:
        raise UserError("keep=: needs edits=FILE.json, which names the regions to sample again")
    if "batch" in args and "edits" in args:
        raise UserError("edits=: not with batch=; name the files in its column edits")
    ranges = {"steps": (1, 1000), "guidance": (0, 100), "sketch_guidance": (0, 100), "strength": (0.001, 1),
              "seed": (0, 2**63 - 1)}  # fmt: skip
    for key, (low, high) in ranges.items():
        if key in args and not low <= args[key] <= high:
            raise UserError(f"{key}={args[key]}: must be between {low} and {high}")
    if args.get("attention", "true") not in SWITCH:
        raise UserError(f"attention={args['attention']}: must be true or false")
    args["attention"] = SWITCH[args.get("attention", "false" if "batch" in args else "true")]
    if args.get("polarity", "auto") not in POLARITIES:
        raise UserError(f"polarity={args['polarity']}: must be one of {', '.join(POLARITIES)}")


def single_request(args: dict[str, Any]) -> Request:
    from ragaf_exp.data.lengths import shortened

    (prompt,) = shortened([args.get("prompt", "")], "prompt")
    edits, keep = (Path(args[key]) if key in args else None for key in ("edits", "keep"))
    return Request(Path(args["sketch"]), prompt, Path(args["out"]), edits, keep)


def batch_requests(args: dict[str, Any]) -> list[Request]:
    """Rows of a CSV or JSONL; paths are relative to the file's folder."""
    from ragaf_exp.data.lengths import shortened
    from ragaf_exp.data.sources.metadata import read_records
    from ragaf_exp.data.sources.names import Names

    table = Path(args["batch"])
    rows, names = read_records(table, ("sketch", "prompt")), Names(table.parent)

    def located(name: str) -> Path:
        return table.parent / (names.find(name) or name)

    prompts = shortened([row["prompt"] for row in rows], table)
    return [
        Request(located(row["sketch"]), prompt, Path(args["out"]) / f"{i:04d}",
                *(located(name) if name else None for name in _edits_and_keep(row, f"{table}: row {i + 1}")))  # fmt: skip
        for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
    ]


def _edits_and_keep(row: dict[str, Any], where: str) -> list[str]:
    """The file names in a row's columns edits and keep; "" = none."""
    names = [row.get(key) or "" for key in ("edits", "keep")]
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: edits and keep must be names of files")
    if names[1] and not names[0]:
        raise UserError(f"{where}: keep needs edits, which names the regions to sample again")
    return names


if __name__ == "__main__":
    guarded(main)
