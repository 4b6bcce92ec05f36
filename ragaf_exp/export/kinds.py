"""Kinds of export: what each one writes, and the reason why a run cannot be exported as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ragaf_exp.export.trained import Trained


class Unsuitable(Exception):
    """A run cannot be exported as this kind; the message is the reason."""


@dataclass(frozen=True)
class Options:
    """The options of an export.

    half: store weights as float16. stage: the stage whose UNet, ControlNet, adapter and LoRA are exported; "" = the
    last where a kind needs its LoRA, else the first. copies: copy unchanged weights of sources instead of naming them.
    """

    half: bool = False
    stage: str = ""
    copies: bool = False


@dataclass(frozen=True)
class Entry:
    """One file or folder of an export. check: compares it with the run, and raises CheckFailed."""

    kind: str
    path: str  # relative to the export's folder
    note: str
    check: Callable[[Path], str]  # path of the file -> what was compared


class CheckFailed(Exception):
    """A file that was written does not read back as the run's weights."""


@dataclass(frozen=True)
class Kind:
    """A kind of export.

    write: (run, folder, options) -> entries; raises Unsuitable. usual: it is written where no kinds are named.
    """

    write: Callable[[Trained, Path, Options], list[Entry]]
    usual: bool = True


Kinds = Mapping[str, Kind]


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
