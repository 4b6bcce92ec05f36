"""A gallery of runs, also of those that are being trained: pictures, curves and figures. It only reads.

A picture is looked up by name among those that the run lists; no path comes from a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.safe_files import is_regular, names_in, read_bounded
from ragaf_exp.report.compare.runs import is_run
from ragaf_exp.report.run import parse
from ragaf_exp.report.run.read import RunData, read_run
from ragaf_exp.report.study.members import study_name
from ragaf_exp.runs.folder import SCHEMA, is_stale
from ragaf_exp.studio.curves import curves_of, headline, member_curves, metric_rows

MOST_RUNS = 200  # that are listed
SCENES = 6  # of a run whose pictures are shown
MAX_PICTURE = 32 * 2**20  # bytes
STATES = {"done": "finished", "running": "running", "failed": "failed"}  # else stopped
MOVING = "attention.gif"


@dataclass(frozen=True)
class Entry:
    """A run folder of the gallery."""

    id: str
    path: Path

    @property
    def name(self) -> str:
        """Name of the experiment, and of the run folder."""
        return f"{self.path.parent.name}/{self.path.name}"

    def status(self) -> dict[str, Any]:
        """Content of status.json. Raises UserError if it is damaged."""
        return read_mapping(self.path / "status.json", SCHEMA)


class Gallery:
    """The runs below a folder.

    Args:
        root: A folder of run folders, such as runs/.
    """

    def __init__(self, root: Path):
        self.root = root.resolve()

    def entries(self) -> list[Entry]:
        """List the run folders, each two levels below the root, without following links."""
        paths = (self.root / name / run for name in names_in(self.root) if not (self.root / name).is_symlink()
                 for run in _names(self.root / name))  # fmt: skip
        runs = [Entry(json_digest(path.relative_to(self.root).as_posix(), 12), path) for path in paths if is_run(path)]
        return runs[:MOST_RUNS]

    def listed(self) -> dict[str, Any]:
        """List runs, the newest first, and studies: experiments of more than one run."""
        runs = [_summary(entry) for entry in self.entries()]
        runs.sort(key=lambda run: -run["updated"])
        return {"runs": runs, "studies": [_study(name, members) for name, members in self._studies().items()]}

    def run(self, identity: str) -> dict[str, Any] | None:
        """Describe a run or a study; None if there is none of this identity."""
        if (entry := self._entry(identity)) is not None:
            return _described(entry)
        for name, members in self._studies().items():
            if _study_id(name) == identity:
                content = member_curves(_readable(members))
                now = {entry.id: _summary(entry) for entry in members}
                shown = ("state", "picture", "updated")
                content["rows"] = [{**row, **{key: now[row["id"]][key] for key in shown}} for row in content["rows"]]
                return {**_study(name, members), "members": content}
        return None

    def trained(self, identity: str) -> Path | None:
        """Return the folder of a trained run; None if there is no run of this identity.

        Raises:
            UserError: It is not trained to the end.
        """
        entry = self._entry(identity)
        if entry is not None and not entry.status().get("trained"):
            raise UserError(f"{entry.name}: is not trained to the end; choose it when it is")
        return None if entry is None else entry.path

    def picture(self, identity: str, name: str) -> bytes | None:
        """Read a picture of a run; None if there is none of this name."""
        entry = self._entry(identity)
        path = None if entry is None else _pictures(entry.path).get(name)
        if path is None or not is_regular(path):
            return None
        return read_bounded(path, MAX_PICTURE)

    def _entry(self, identity: str) -> Entry | None:
        return next((entry for entry in self.entries() if entry.id == identity), None)

    def _studies(self) -> dict[str, list[Entry]]:
        groups: dict[str, list[Entry]] = {}
        for entry in self.entries():
            groups.setdefault(entry.path.parent.name, []).append(entry)
        return {name: members for name, members in groups.items() if len(members) > 1}


def _names(folder: Path) -> Iterator[str]:
    """The names of folders in a folder; a link or a file is none."""
    for name in names_in(folder):
        path = folder / name
        if not path.is_symlink() and path.is_dir():
            yield name


def _summary(entry: Entry) -> dict[str, Any]:
    """One line of the list; a damaged run has an error instead of its figures."""
    content: dict[str, Any] = {"id": entry.id, "name": entry.name, "state": "failed", "updated": 0, "steps": {},
                               "trained": False, "headline": [], "picture": None, "error": None}  # fmt: skip
    try:
        status = entry.status()
        metrics = parse.figures(entry.path / "metrics.json").metrics if is_regular(entry.path / "metrics.json") else {}
        pictures = _pictures(entry.path)
    except UserError as error:
        return {**content, "error": str(error)}
    stage = status.get("stage")
    steps = {str(stage): [status.get("step"), status.get("steps")]} if stage else {}
    return {**content, "state": _state(status), "updated": int(status.get("updated", 0)), "steps": steps,
            "trained": bool(status.get("trained")), "headline": headline(metrics),
            "picture": next(iter(pictures), None), "error": status.get("error")}  # fmt: skip


def _state(status: dict[str, Any]) -> str:
    return "stopped" if is_stale(status) else STATES.get(status.get("state", ""), "stopped")


def _described(entry: Entry) -> dict[str, Any]:
    """Everything about a run. Raises UserError if a file of it is damaged."""
    run = read_run(entry.path)
    command = run.environment.get("command", [])
    overrides = [text for text in command if isinstance(text, str) and "=" in text] if isinstance(command, list) else []
    pictures = [{"name": name, "title": _title(name, run)} for name in _pictures(entry.path)]
    return {**_summary(entry), "overrides": overrides, "member": study_name(run.settings), "pictures": pictures,
            "curves": curves_of(run), "metrics": metric_rows(run.metrics), "notes": run.notes}  # fmt: skip


def _title(name: str, run: RunData) -> str:
    """The title of a picture: its scene's caption, or the stage and step of a validation grid."""
    folder, _, file = name.rpartition("/")
    stem = file.partition(".")[0]
    captions = {path.relative_to(run.path / "samples").as_posix(): f"{key.replace('_', ' ')}: {scene.caption}"
                for scene in run.scenes[:SCENES] for key, path in scene.pictures.items()}  # fmt: skip
    moving = {path.rpartition("/")[0]: title.partition(": ")[2] for path, title in captions.items()}
    if file == MOVING:
        return f"attention over time: {moving.get(folder, '')}"
    return captions.get(name) or (stem.replace("-", ", step ") if not folder else f"{folder}: {stem}")


def _pictures(run: Path) -> dict[str, Path]:
    """The pictures of a run by name: the test grid, validation grids with the newest first, and those of some scenes."""
    samples = run / "samples"
    names = ["test/grid.png", *sorted((n for n in names_in(samples) if n.endswith(".png")), key=_step, reverse=True)]
    for scene in [name for name in names_in(samples / "test") if (samples / "test" / name).is_dir()][:SCENES]:
        names += [f"test/{scene}/{name}" for name in _shown(names_in(samples / "test" / scene))]
    return {name: samples / name for name in names if is_regular(samples / name)}


def _step(name: str) -> str:
    """The step in the name of a validation grid, such as refine-000018.png."""
    return name.partition("-")[2]


def _shown(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.endswith(".png") or name == MOVING]


def _study_id(name: str) -> str:
    return json_digest(["study", name], 12)


def _study(name: str, members: list[Entry]) -> dict[str, Any]:
    return {"id": _study_id(name), "name": name, "runs": [entry.id for entry in members]}


def _readable(members: list[Entry]) -> list[tuple[str, str, RunData]]:
    """Identity, name in the study and content of the runs that can be read."""
    listed = []
    for entry in members:
        try:
            run = read_run(entry.path)
        except UserError:  # the list of runs shows the reason
            continue
        listed.append((entry.id, study_name(run.settings) or entry.path.name, run))
    return listed
