"""Samples images from a trained run, given a sketch and a prompt.

    python -m ragaf_exp.sample [run=DIR] sketch=FILE 'prompt="..."' out=DIR
        [seed=0] [steps=20] [guidance=3] [strength=0.6] [size=768x512] [attention=true|false]
        [edits=FILE.json [keep=IMAGE]]
    python -m ragaf_exp.sample run=DIR edits=RECIPE out=DIR
    python -m ragaf_exp.sample run=DIR batch=FILE out=DIR

run: a run folder; by default demo, the network that ships with the package.
batch: a CSV or JSONL file with the columns sketch and prompt, and perhaps edits and keep; each row gets a folder under
out. A run of another task takes that task's columns instead, such as image= and mask=. edits: prompts of single
regions, as {"regions": [{"at": [0.3, 0.5], "prompt": "green"}]}; a region is named by a point in it (shares of width and
height) or by its "index", which result.json lists with a point of each. Such a region reads its prompt alone, the
others the caption. Further keys of a region: importance (0 to 2; 1 is as trained), start and end (shares of the noise
schedule between which it reads its text), outline (0 to 2, of the sketch there), locked. keep: an image, as an earlier
stage2.png, of which only the regions in edits that are not locked are sampled again; the keys strength (0.7) and grow
(0.03 of the side) stand next to "regions".
RECIPE: a PNG that the studio saved, or its recipe.json. Without sketch= it is made again: its drawing, regions and edits,
and its prompt, seed, steps, guidance, scheduler and strength where these arguments don't say otherwise.
strength: share of the noise schedule that the last stage runs, in (0,1]. size: width x height in pixels, or one number for
a square; by default the size that the run was trained at. The drawing is fitted into it. attention: whether to write
attention maps over the timesteps; by default for a single image only, as it takes seconds.

    python -m ragaf_exp.sample run=DIR image=FILE mask=FILE [object=FILE] 'prompt="..."' out=DIR
        [task=NAME] [hole=white|black|transparent|opaque] [crop=around|whole] [context=0.5] [feather=0]
        [resamplings=5] [jump=5] [steps=50]

edits an image of any size: a crop around the hole is sampled and pasted back, and all other pixels stay as they are.
object: a picture of what a run of insertion paints. task: one of those of a run of several. hole: which pixels of the
mask are the hole, where that can't be read from it. context: margin around the hole, as a share of its longer side.
feather: width in pixels of a soft edge within the hole. resamplings, jump: RePaint's, which any run can inpaint with,
and which a run whose task takes no image always does.

Networks that the config of a run made elsewhere names, such as backbone.source, are used where these arguments repeat
them. Example:

    python -m ragaf_exp.sample run=runs/latest sketch=apple.png 'prompt="a red apple"' out=samples
    python -m ragaf_exp.sample run=runs/latest sketch=apple.png 'prompt="a red apple"' edits=leaf.json \
        keep=samples/stage2.png out=again
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.packaged import DEMO
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.writable import check_folder
from ragaf_exp.data.sizes import parse_size
from ragaf_exp.inference.requests import NUMBERS, Columns, Request, columns_of
from ragaf_exp.runs.followed import split_followed

if TYPE_CHECKING:
    from ragaf_exp.inference.recipes.types import SketchRecipe

ARGUMENTS = {
    "run": str, "sketch": str, "prompt": str, "out": str, "batch": str, "seed": int, "steps": int, "guidance": float,
    "sketch_guidance": float, "image_guidance": float, "strength": float, "scheduler": str, "polarity": str,
    "attention": str, "size": str, "edits": str, "keep": str,
    "task": str, "hole": str, "crop": str, "context": float, "feather": float, "resamplings": int, "jump": int,
}  # fmt: skip
SKETCH, PROMPT = "sketch", "prompt"
EDITS = ("edits", "keep")  # further columns of any task
SKETCH_TEXT = Columns({SKETCH: "drawing", PROMPT: "text"}, (PROMPT,))
IMAGE = "image"
REPAINT = Columns({IMAGE: "image", "mask": "image", PROMPT: "text", SKETCH: "drawing"}, (PROMPT, SKETCH))
CHOICES = {"hole": ("auto", "white", "black", "transparent", "opaque"), "crop": ("around", "whole")}
SWITCH = {"true": True, "false": False}
POLARITIES = ("auto", "dark", "light")


def main() -> None:
    arguments, followed = split_followed(sys.argv[1:])
    if not any(argument.startswith("run=") for argument in arguments):
        arguments = [f"run={DEMO}", *arguments]
    columns = columns_of(parse_args([a for a in arguments if a.startswith("run=")], {"run": str})["run"])
    if IMAGE not in columns.kinds and _has_images(arguments):
        columns = REPAINT
    args = parse_args(arguments, known_arguments(columns))
    recipe = take_recipe(args)
    check(args, columns)
    check_folder(Path(args["out"]), "out")
    requests = batch_requests(args, columns) if "batch" in args else [single_request(args, columns, recipe)]
    with stub_optional_imports():  # heavy: only once the arguments are known to be good
        from ragaf_exp.commands.sample import sample_requests

    began = time.monotonic()
    sample_requests(requests, args, followed)
    place = args["out"] if "batch" in args else requests[0].out
    print(f"{len(requests)} image{'s' * (len(requests) > 1)} in {time.monotonic() - began:.1f} s: {place}")


def _has_images(arguments: list[str]) -> bool:
    """Whether the command line names an image to edit, or a table with a column of them."""
    if any(argument.startswith(f"{IMAGE}=") for argument in arguments):
        return True
    from ragaf_exp.data.sources.tables import SUFFIXES, read_file

    tables = [Path(a.partition("=")[2]) for a in arguments if a.startswith("batch=")]
    return any(path.suffix in SUFFIXES and path.is_file() and any(IMAGE in r.values for r in read_file(path, IMAGE)[:1])
               for path in tables)  # fmt: skip


def take_recipe(args: dict[str, Any]) -> SketchRecipe | None:
    """The recipe that `edits` names, where it stands for everything; `args` get its settings where they have none."""
    if "edits" not in args or {SKETCH, "batch", IMAGE, "keep", "size"} & args.keys():
        return None
    from ragaf_exp.inference.recipes.files import read_recipe

    recipe = read_recipe(Path(args["edits"]))
    if recipe is not None:
        settings = {**recipe.settings.overrides(), "seed": recipe.settings.seed, "strength": recipe.settings.strength}
        given = {PROMPT: recipe.caption, SKETCH: args["edits"], **settings}
        args.update({key: value for key, value in given.items() if key not in args and value is not None})
    return recipe


def known_arguments(columns: Columns) -> dict[str, type]:
    """The arguments of a run whose task has these columns."""
    others = {name: kind for name, kind in ARGUMENTS.items() if name not in SKETCH_TEXT.kinds}
    return dict.fromkeys(columns.kinds, str) | others


def check(args: dict[str, Any], columns: Columns = SKETCH_TEXT) -> None:
    """UserError where an argument is missing or out of range; attention= becomes a bool, size= a height and width."""
    for key in ("run", "out"):
        if not args.get(key):
            raise UserError(f"{key}=: missing; give [run=DIR] sketch=FILE 'prompt=\"...\"' out=DIR")
    _check_columns(args, columns)
    if "keep" in args and "edits" not in args:
        raise UserError("keep=: needs edits=FILE.json, which names the regions to sample again")
    if "batch" in args and "edits" in args:
        raise UserError("edits=: not with batch=; name the files in its column edits")
    ranges = {"steps": (1, 1000), "guidance": (0, 100), "sketch_guidance": (0, 100), "image_guidance": (0, 100),
              "strength": (0.001, 1), "seed": (0, 2**63 - 1), "context": (0, 10), "feather": (0, 1000),
              "resamplings": (1, 100), "jump": (1, 1000)}  # fmt: skip
    for key, (low, high) in ranges.items():
        if key in args and not low <= args[key] <= high:
            raise UserError(f"{key}={args[key]}: must be between {low} and {high}")
    for key, options in CHOICES.items():
        if args.get(key, options[0]) not in options:
            raise UserError(f"{key}={args[key]}: must be one of {', '.join(options)}")
    if "size" in args:
        args["size"] = parse_size(args["size"])
    if args.get("attention", "true") not in SWITCH:
        raise UserError(f"attention={args['attention']}: must be true or false")
    args["attention"] = SWITCH[args.get("attention", "false" if "batch" in args else "true")]
    if args.get("polarity", "auto") not in POLARITIES:
        raise UserError(f"polarity={args['polarity']}: must be one of {', '.join(POLARITIES)}")


def _check_columns(args: dict[str, Any], columns: Columns) -> None:
    """UserError unless there is either a batch, or every column that the task requires."""
    first, names = columns.required[0], list(columns.kinds)
    if ("batch" in args) == any(name in args for name in columns.required):
        rest = "".join(f" with {name}=" for name in names[1:])
        raise UserError(f"{first}=: give either {first}=FILE{rest}, or batch=FILE of {' and '.join(names)}")
    if "batch" not in args and (absent := [name for name in columns.required if not args.get(name)]):
        raise UserError(f"{absent[0]}=: missing; the task of this run needs {', '.join(columns.required)}")


def single_request(
    args: dict[str, Any], columns: Columns = SKETCH_TEXT, recipe: SketchRecipe | None = None
) -> Request:
    """The request of the command line.

    Args:
        args: The arguments.
        columns: Of the run's task.
        recipe: Of the studio, if that is what `edits` names.
    """
    from ragaf_exp.data.lengths import shortened

    (prompt,) = shortened([args.get(PROMPT, "")], PROMPT)
    given = {name: Path(args[name]) for name in (*columns.files, *EDITS) if args.get(name)}
    return replace(_request(given, prompt, Path(args["out"])), recipe=recipe, numbers=columns.numbers(args))


def batch_requests(args: dict[str, Any], columns: Columns = SKETCH_TEXT) -> list[Request]:
    """Rows of a CSV or JSONL; paths in it are relative to the file's folder. columns: of the run's task."""
    from ragaf_exp.data.lengths import shortened
    from ragaf_exp.data.sources.metadata import read_records
    from ragaf_exp.data.sources.names import Names

    table = Path(args["batch"])
    rows, names = read_records(table, _table_columns(columns)), Names(table.parent)
    for number, row in enumerate(rows, 1):
        _check_edits(row, f"{table}: row {number}")
        _check_optional(row, columns, f"{table}: row {number}")
    prompts = shortened([row.get(PROMPT) or "" for row in rows], table)
    wanted = (*columns.files, *EDITS)
    located = [{name: table.parent / (names.find(row[name]) or row[name]) for name in wanted if row.get(name)}
               for row in rows]  # fmt: skip
    return [replace(_request(files, prompt, Path(args["out"]) / f"{i:04d}"), numbers=columns.numbers(row))
            for i, (files, prompt, row) in enumerate(zip(located, prompts, rows, strict=True))]  # fmt: skip


def _table_columns(columns: Columns) -> tuple[str, ...]:
    """The columns that a table must have: all where the prompt describes the image, else the required ones."""
    return tuple(columns.required) if IMAGE in columns.kinds else tuple(columns.kinds)


def _check_optional(row: dict[str, Any], columns: Columns, where: str) -> None:
    """UserError unless a row's optional columns are texts, or empty."""
    for name in (name for name in columns.optional if columns.kinds[name] != NUMBERS):
        if not isinstance(row.get(name) or "", str):
            raise UserError(f"{where}: its {name} is no text")


def _check_edits(row: dict[str, Any], where: str) -> None:
    """UserError unless a row's columns edits and keep, which any task's table may have, are names of files."""
    names = [row.get(key) or "" for key in EDITS]
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: edits and keep must be names of files")
    if names[1] and not names[0]:
        raise UserError(f"{where}: keep needs edits, which names the regions to sample again")


def _request(files: dict[str, Path], prompt: str, out: Path) -> Request:
    sketch, edits, keep = (files.pop(name, None) for name in (SKETCH, *EDITS))
    return Request(sketch, prompt, out, files, edits, keep)


if __name__ == "__main__":
    guarded(main)
