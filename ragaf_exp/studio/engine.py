"""A loaded run at work for the page: regions of drawings, jobs, examples."""

from __future__ import annotations

import itertools
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ragaf_exp.commands.sample import write_files
from ragaf_exp.compute.out_of_memory import free, is_out_of_memory
from ragaf_exp.core.errors import OutOfMemory, UserError
from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.printable import printable
from ragaf_exp.data.decode import read_labels
from ragaf_exp.data.uploads import check_picture
from ragaf_exp.diffusion.keeping import Stopped
from ragaf_exp.inference.recipes import ImageRecipe, SketchRecipe, parse_recipe, recipe_in, with_recipe
from ragaf_exp.inference.recipes.parse import MAX_CAPTION
from ragaf_exp.inference.recipes.write import to_json
from ragaf_exp.inference.requests import Request
from ragaf_exp.studio.drawing import Drawings
from ragaf_exp.studio.editing import edit_image
from ragaf_exp.studio.events import Picture
from ragaf_exp.studio.examples import Results, examples
from ragaf_exp.studio.files import evolution_files, files_of
from ragaf_exp.studio.jobs import Job
from ragaf_exp.studio.limits import TEXTS, described
from ragaf_exp.studio.loaded import Loaded
from ragaf_exp.studio.sampling import Result, sample

log = logging.getLogger(__name__)
NO_REGION = 255  # in a label map that is a picture


@dataclass
class Studio:
    """A loaded run, with the functions that the page calls."""

    run: Loaded
    drawings: Drawings
    description: dict[str, Any]  # of the run, which does not change
    out: Path | None = None  # every result is written there as well
    results: Results = field(default_factory=lambda: Results(examples()))
    numbers: Any = field(default_factory=itertools.count)
    _finding: threading.Lock = field(default_factory=threading.Lock)  # extraction is quick, and memory is bounded

    @classmethod
    def load(cls, path: Path, out: Path | None) -> Studio:
        """Load a run. Raises UserError as `sample` does."""
        run = Loaded.read(path)
        return cls(run, run.drawings(), run.described(), out)

    def about(self) -> dict[str, Any]:
        """Describe the run and the limits of requests."""
        return {**self.description, "limits": described()}

    def drawings_ready(self) -> None:
        """Find the regions of a drawing once, which compiles the extractor."""
        self.drawings.describe(np.zeros(self.run.size, np.float32))
        first = self.results.listed[0].recipe(self.drawings)
        self.drawings.describe(first.sketch.astype(np.float32) / 255)

    def warm_up(self, stopped: Callable[[], bool]) -> None:
        """Sample the first example with everything that a job records: later jobs are quicker."""
        if not self.run.takes_image:
            self._sample_example(stopped, details=True)

    def idle(self, stopped: Callable[[], bool]) -> None:
        """Compute the result of one more example."""
        if not self.run.takes_image and self.results.missing() is not None:
            self._sample_example(stopped, details=False)

    def _sample_example(self, stopped: Callable[[], bool], details: bool) -> None:
        example = self.results.missing()
        assert example is not None, "called where there is one"
        try:
            result = sample(self.run, example.recipe(self.drawings), lambda kind, **data: None, stopped, details)
        except Stopped:
            return
        except UserError as error:
            log.warning("example %s: %s", example.id, error)
            self.results.failed.add(example.id)
            return
        recipe = to_json(result.recipe, self.run.name, packed=True)
        self.results.images[example.id] = with_recipe(result.image, recipe)

    def find_regions(self, picture: bytes, method: str) -> dict[str, Any]:
        """Find the regions of an uploaded drawing or photo. Raises UserError for a bad picture."""
        with self._finding:
            return self.drawings.describe(self.drawings.read(picture, method))

    def edit_regions(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Edit a label map by hand. Raises UserError where that is not possible."""
        with self._finding:
            return self.drawings.edit(request)

    def read_label_map(self, picture: bytes) -> dict[str, Any]:
        """Read an uploaded label map, in which 255 is no region. Raises UserError for a bad one, or too many regions."""
        check_picture(picture, "labels")
        values = read_labels("labels", picture)
        return self.drawings.relabel(np.where(values == NO_REGION, -1, values))

    def look_up(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Split texts into the words that the run knows and those that are left out. Raises UserError."""
        texts = request.get("texts")
        if not isinstance(texts, list) or len(texts) > TEXTS or not all(isinstance(text, str) for text in texts):
            raise UserError(f"texts: must be a list of at most {TEXTS} texts")
        rows = []
        for text in texts:
            known, left_out = self.run.text.known_part(text[:MAX_CAPTION])
            rows.append({"text": text, "read": known, "left_out": left_out})
        return {"texts": rows}

    def read_recipe(self, content: bytes) -> dict[str, Any]:
        """Read the recipe of a PNG or JSON. Raises UserError where it holds none."""
        read = recipe_in(content, "file")
        recipe = parse_recipe(read)
        if isinstance(recipe, SketchRecipe) and recipe.size != self.run.size and recipe.strokes is None:
            height, width = recipe.size
            raise UserError(f"recipe: is {width}x{height} and holds no strokes to draw it again at this run's size")
        return {"recipe": to_json(recipe, recipe_run(read))}

    def attempt(self, job: Job) -> None:
        """Work on a job; a user's mistake, a stop or too little memory becomes its last event."""
        try:
            self._work(job)
        except Stopped:
            job.report("stopped")
        except UserError as error:
            job.report("error", error=printable(error))
        except Exception as error:
            if not is_out_of_memory(error) and not isinstance(error, OutOfMemory):
                raise
            free()
            job.report("error", error="memory ran out; take a smaller picture, or end other programs")

    def _work(self, job: Job) -> None:
        if isinstance(job.recipe, ImageRecipe):
            self._edit(job, job.recipe)
        elif self.run.takes_image:
            raise UserError("this run edits images; start the studio with a run of the task sketch_text to draw")
        else:
            self._sample(job, job.recipe)

    def _sample(self, job: Job, recipe: SketchRecipe) -> None:
        result = sample(self.run, recipe, job.report, job.stopped, job.details)
        packed = to_json(recipe, self.run.name, packed=True)
        job.files = files_of(result, packed)
        arrays = (one.nbytes for _, one in result.attention)
        job.bytes += sum(len(frame.content) for frame in result.frames) + sum(arrays) + 4 * result.image.nbytes
        shown = to_json(recipe, self.run.name)
        shown.pop("keep", None)
        image = Picture(with_recipe(result.image, packed))
        job.report("done", seconds=result.seconds, image=image, recipe=shown, changed=result.changed,
                   colours=result.colours, files=list(job.files))  # fmt: skip
        if self.out is not None:
            self._write(result, packed)

    def _edit(self, job: Job, recipe: ImageRecipe) -> None:
        edit = edit_image(self.run, recipe, job.report, job.stopped, job.details)
        packed = to_json(recipe, self.run.name, packed=True)
        content = with_recipe(edit.image, packed)
        job.files = {"result.png": lambda: content, **evolution_files(edit.frames),
                     "recipe.json": json.dumps(packed).encode}  # fmt: skip
        job.bytes += len(content) + edit.image.nbytes + sum(len(frame.content) for frame in edit.frames)
        shown = {key: value for key, value in packed.items() if key not in ("image", "mask", "sketch", "object")}
        job.report("done", seconds=edit.seconds, image=Picture(content), recipe=shown, changed=edit.changed,
                   files=list(job.files))  # fmt: skip
        if self.out is not None:
            write_bytes(self._folder(self.out) / "result.png", content)

    def _folder(self, out: Path) -> Path:
        """A new folder for a result."""
        folder = next(path for path in (out / f"{number:04d}" for number in self.numbers) if not path.exists())
        folder.mkdir(parents=True)
        return folder

    def _write(self, result: Result, recipe: dict[str, Any]) -> None:
        """Write a result in the layout of `sample`, with its recipe."""
        assert self.out is not None, "only where there is a folder"
        folder = self._folder(self.out)
        request = Request(None, result.recipe.caption, folder)
        facts = {"run": str(self.run.folder.path), "sample_s": result.seconds}
        write_files(request, result.example, result.sampled, 0, result.parts, result.pipeline, facts)
        write_bytes(folder / "recipe.json", json.dumps(recipe).encode())


def recipe_run(content: Mapping[str, Any]) -> dict[str, Any]:
    """Name and checksum of the run that a recipe states, as far as they are texts."""
    run = content.get("run")
    if not isinstance(run, dict):
        return {}
    return {key: run[key][:200] for key in ("name", "checksum") if isinstance(run.get(key), str)}
