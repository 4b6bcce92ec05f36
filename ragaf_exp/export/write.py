"""Writes an export, whole or not at all, and checks every file before the folder gets its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import sync, write_folder
from ragaf_exp.core.resident import new_objects_only, release
from ragaf_exp.export import adapter, checkpoint, controlnet, diffusers_folder, lora, onnx_files, run_folder
from ragaf_exp.export.card import write_card
from ragaf_exp.export.kinds import CheckFailed, Entry, Kind, Options, Unsuitable, size_of
from ragaf_exp.export.trained import Trained

KINDS: Mapping[str, Kind] = {
    diffusers_folder.KIND: Kind(diffusers_folder.write),
    controlnet.KIND: Kind(controlnet.write),
    adapter.KIND: Kind(adapter.write),
    lora.KIND: Kind(lora.write),
    checkpoint.KIND: Kind(checkpoint.write),
    onnx_files.KIND: Kind(onnx_files.write, usual=False),
    run_folder.KIND: Kind(run_folder.write),
}


@dataclass(frozen=True)
class Row:
    """A line of the table. checked: what its check compared. reason: why a kind was not written; "" = it was."""

    kind: str
    path: str
    size: int
    note: str
    checked: str = ""
    reason: str = ""


def export(trained: Trained, out: Path, kinds: Sequence[str], options: Options, licence: str) -> list[Row]:
    """Write an export.

    Args:
        trained: The run.
        out: Its folder, which must not exist.
        kinds: Names of KINDS; empty = those that the run can be, except the unusual ones.
        options: Its options.
        licence: Of the model card.

    Returns:
        The rows of the table: what was written, what was not and why.

    Raises:
        UserError: The folder exists, a kind that was named cannot be written, or a check failed. Nothing is left.
    """
    if out.exists():
        raise UserError(f"out={out}: exists; choose another folder or remove it")
    rows: list[Row] = []
    with new_objects_only():
        write_folder(out, lambda folder: rows.extend(_fill(folder, trained, kinds, options, licence)))
    return rows


def _fill(folder: Path, trained: Trained, kinds: Sequence[str], options: Options, licence: str) -> list[Row]:
    entries: list[Entry] = []
    skipped: list[Row] = []
    for name in kinds or [name for name, kind in KINDS.items() if kind.usual]:
        try:
            entries += KINDS[name].write(trained, folder, options)
        except Unsuitable as error:
            if kinds:
                raise UserError(f"kinds: {name}: {error}") from error
            skipped.append(Row(name, "", 0, "", reason=str(error)))
    unusual = [name for name, kind in KINDS.items() if not kind.usual and not kinds]
    skipped += [Row(name, "", 0, "", reason=f"takes long; name it: kinds='[{name}]'") for name in unusual]
    write_card(trained, folder, entries, licence)
    written = [_checked(folder, entry) for entry in entries]
    for path in folder.rglob("*"):
        sync(path)
    return [*written, *skipped]


def _checked(folder: Path, entry: Entry) -> Row:
    path = folder / entry.path
    release()
    try:
        compared = entry.check(path)
    except CheckFailed as error:
        raise UserError(f"{entry.kind}: the export failed its own check and was removed ({error}); this is a fault of "
                        "ragaf_exp, please report it") from error  # fmt: skip
    return Row(entry.kind, entry.path, size_of(path), entry.note, compared)
