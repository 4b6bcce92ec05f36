"""The kinds of edits of images that a run can make, and the pictures that each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragaf_exp.commands.edit import IMAGE, MASK
from ragaf_exp.tasks.base import Task

OBJECT = "object"  # a column of tasks that insert something
PICTURE = "image"  # the kind of a column that is a picture


@dataclass(frozen=True)
class EditKind:
    """A kind of edit."""

    name: str  # of the task, in a run of several; else ""
    column: str  # of the picture that is edited
    mask: bool  # whether it needs a mask
    object: bool  # whether it needs a picture of an object
    trained: bool = True  # otherwise RePaint

    def described(self) -> dict[str, Any]:
        """Describe it for the page."""
        return {"name": self.name, "picture": "photo" if self.column == IMAGE else "painting",
                "mask": "required" if self.mask else "none", "object": self.object,
                "method": "trained" if self.trained else "repaint"}  # fmt: skip


REPAINT = EditKind("", IMAGE, True, False, trained=False)


def edit_kinds(task: Task) -> list[EditKind]:
    """List the kinds of edits of a task that takes pictures, one for each task of a run of several; none for others."""
    if task.choices:
        return [kind for name, part in task.choices.items() if (kind := _kind(part, name)) is not None]
    kind = _kind(task, "")
    return [] if kind is None else [kind]


def _kind(task: Task, name: str) -> EditKind | None:
    needed = [column for column, kind in task.columns.items() if kind == PICTURE and column not in task.optional]
    if not needed:
        return None
    column = IMAGE if IMAGE in needed else needed[0]
    return EditKind(name, column, MASK in needed, OBJECT in needed)
