"""Files of region edits: {"regions": [{"at": [0.3, 0.5], "prompt": "green"}, {"index": 2, "locked": true}]}.

A region is named by its index or by a point in it, as shares of width and height from the top left, which survives
another numbering. Its other keys are those of RegionEdit. With an image to keep, the regions of the file that are not
locked are sampled again, and the keys strength and grow next to "regions" apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragaf_exp.core.edits import GROWTH, STRENGTH, RegionEdit, RegionEdits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import parse_json
from ragaf_exp.core.safe_files import read_bounded
from ragaf_exp.core.types import Regions
from ragaf_exp.data.lengths import shortened
from ragaf_exp.inference.recipes.files import read_recipe
from ragaf_exp.inference.recipes.types import SketchRecipe
from ragaf_exp.regions.points import nearest_region, region_at, region_points

KINDS = {"prompt": (str, "a text"), "importance": (float, "a number"), "outline": (float, "a number"),
         "locked": (bool, "true or false"), "start": (float, "a number"), "end": (float, "a number")}  # fmt: skip


@dataclass(frozen=True)
class NamedEdit:
    """An edit and the region that it is for: an index, or a point (x, y) in it."""

    region: int | tuple[float, float]
    edit: RegionEdit


@dataclass(frozen=True)
class EditFile:
    """The content of a file of region edits."""

    path: Path
    edits: tuple[NamedEdit, ...]
    strength: float = STRENGTH
    grow: float = GROWTH

    def resolve(self, regions: Regions, keep: np.ndarray | None = None, strength: float | None = None) -> RegionEdits:
        """Assign the edits to the regions of a drawing.

        Args:
            regions: The drawing's regions.
            keep: (H,W,3) uint8, an image whose other regions stay.
            strength: Replaces the file's strength.

        Raises:
            UserError: An edit names no region of the drawing, or two edits name the same.
        """
        edits: dict[int, RegionEdit] = {}
        for named in self.edits:
            index = self._index(named.region, regions)
            if index in edits:
                raise UserError(f"{self.path}: two entries name region {index}; merge them")
            edits[index] = named.edit
        listed = tuple(edits.get(i, RegionEdit()) for i in range(regions.count))
        redo = frozenset(i for i, edit in edits.items() if keep is not None and not edit.locked)
        if keep is not None and not redo:
            raise UserError(f"{self.path}: names no region to sample again; add one that is not locked, or leave out keep=")
        return RegionEdits(listed, keep, redo, self.strength if strength is None else strength, self.grow)

    def _index(self, region: int | tuple[float, float], regions: Regions) -> int:
        labels, points = regions.labels, region_points(regions.labels, regions.count)
        if not points:
            raise UserError(f"{self.path}: the drawing has no regions, as it is all stroke; leave out edits=")
        if isinstance(region, int):
            if 0 <= region < regions.count:
                return region
            last = regions.count - 1
            raise UserError(f"{self.path}: index={region}: the drawing has regions 0 to {last}; region {last} is at "
                            f"{list(points[last])}")  # fmt: skip
        index = region_at(labels, *region)
        if index < 0:
            near = nearest_region(labels, *region)
            raise UserError(f"{self.path}: at={list(region)}: no region there; the nearest is region {near}, at "
                            f"{list(points[near])}")  # fmt: skip
        return index


def read_edits(path: Path) -> EditFile:
    """Read a file of region edits, or those of a recipe, whose regions are then named by a point in each.

    Raises UserError, one line that names the entry, if it is not valid.
    """
    if (recipe := read_recipe(path)) is not None:
        return _of_recipe(path, recipe)
    try:
        content = parse_json(read_bounded(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give edits=FILE.json") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); see python -m ragaf_exp.sample --help") from error
    return parse_edits(content, path)


def parse_edits(content: Any, path: Path) -> EditFile:
    """Check the parsed content of a file of region edits. path: for messages. Raises UserError as `read_edits`."""
    if not isinstance(content, dict) or not isinstance(content.get("regions"), list):
        raise UserError(f'{path}: must be {{"regions": [{{"at": [0.3, 0.5], "prompt": "green"}}]}}')
    _check_keys(content, {"regions", "strength", "grow"}, str(path))
    given = [key for key in ("strength", "grow") if key in content]
    numbers = {key: _typed(content[key], float, "a number", f"{path}: {key}") for key in given}
    try:
        RegionEdits((), **numbers)
        edits = tuple(_named(entry, f"{path}: entry {i}") for i, entry in enumerate(content["regions"]))
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    return EditFile(path, edits, **numbers)


def _of_recipe(path: Path, recipe: SketchRecipe) -> EditFile:
    points = region_points(recipe.labels, len(recipe.regions))
    edited = [i for i, edit in enumerate(recipe.regions) if edit != RegionEdit() or i in recipe.redo]
    edits = tuple(NamedEdit(points[i], recipe.regions[i]) for i in edited)
    return EditFile(path, edits, recipe.redo_strength, recipe.grow)


def _named(entry: Any, where: str) -> NamedEdit:
    if not isinstance(entry, dict) or ("index" in entry) == ("at" in entry):
        raise UserError(f'{where}: must be an object with either "index": 0 or "at": [0.3, 0.5]')
    _check_keys(entry, {"index", "at", *KINDS}, where)
    values = {key: _typed(entry[key], *KINDS[key], f"{where}: {key}") for key in KINDS if key in entry}
    if "prompt" in values:
        values["prompt"] = shortened([values["prompt"]], where)[0]
    try:
        edit = RegionEdit(**values)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix('edits: ')}") from error
    if "at" in entry:
        return NamedEdit(_point(entry["at"], where), edit)
    return NamedEdit(_typed(entry["index"], int, "an integer", f"{where}: index"), edit)


def _point(value: Any, where: str) -> tuple[float, float]:
    valid = isinstance(value, list) and len(value) == 2 and all(type(v) in (int, float) and 0 <= v <= 1 for v in value)
    if not valid:
        raise UserError(f"{where}: at={value}: must be [x, y], shares of width and height from 0 to 1")
    return float(value[0]), float(value[1])


def _typed(value: Any, kind: type, what: str, where: str) -> Any:
    """The value, of this type; an integer also counts as a number."""
    if type(value) is int and kind is float:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{where}={value!r}: must be {what}")
    return value


def _check_keys(content: dict[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(content.keys() - known):
        raise UserError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
