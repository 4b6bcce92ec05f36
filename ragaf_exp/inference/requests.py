"""Sampling requests, and the columns that the task of a run gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragaf_exp.config.added import ADDED
from ragaf_exp.config.build import ALLOWED, locate
from ragaf_exp.config.constructors import Unreadable, read_attribute
from ragaf_exp.config.moved import current
from ragaf_exp.config.plain import read_plain
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.numbers import numbers_of

if TYPE_CHECKING:
    from ragaf_exp.inference.recipes.types import SketchRecipe

TEXT, NUMBERS = "text", "numbers"  # kinds of columns that are no files


@dataclass(frozen=True)
class Request:
    """One image to sample.

    out: the folder of its files. files: the task's columns besides sketch and prompt. edits: of regions. keep: an image of
    which all but the edited regions stays. recipe: of the studio, which has the drawing, its regions and their edits.
    numbers: the task's columns of numbers.
    """

    sketch: Path | None
    prompt: str
    out: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    edits: Path | None = None
    keep: Path | None = None
    recipe: SketchRecipe | None = None
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file that stands for the request in messages."""
        return str(self.sketch or next(iter(self.files.values()), self.out))


@dataclass(frozen=True)
class Columns:
    """The columns of a task's requests, name -> kind, and those that can be left out."""

    kinds: Mapping[str, str]
    optional: tuple[str, ...] = ()

    @property
    def required(self) -> list[str]:
        """Names of the columns that every request has."""
        return [name for name in self.kinds if name not in self.optional]

    @property
    def files(self) -> list[str]:
        """Names of the columns that are files."""
        return [name for name, kind in self.kinds.items() if kind not in (TEXT, NUMBERS)]

    def numbers(self, values: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
        """The columns of numbers among the values of a command line or row, as text with commas or as lists.

        Raises:
            UserError: One holds something else.
        """
        given = {name: values[name] for name, kind in self.kinds.items() if kind == NUMBERS and values.get(name)}
        return {name: _numbers(name, value) for name, value in given.items()}


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    try:
        return numbers_of(value)
    except (TypeError, ValueError):
        raise UserError(f"{name}={value}: must be numbers with commas between them") from None


def columns_of(run: str) -> Columns:
    """The columns of the task that a run folder's config names; without a readable config those of sketch_text.

    They are read from the task's source where possible, since an import takes seconds.
    """
    try:
        target = current(read_plain(Path(run) / "config.yaml"))["task"]["_target_"]
    except (UserError, OSError, KeyError, TypeError):  # loading the run explains what is wrong with it
        target = ADDED["task"]["_target_"]
    if not str(target).startswith(ALLOWED):
        locate(target, "task")
    try:
        return Columns(read_attribute(target, "columns"), read_attribute(target, "optional"))
    except Unreadable:
        task: Any = locate(target, "task")
        return Columns(task.columns, task.optional)
