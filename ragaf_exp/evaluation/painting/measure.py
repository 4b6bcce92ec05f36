"""The figures of a run of paint: guidance against wrong hints, and SDEdit from flood-filled hints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from eval.edges import EdgeReader
from eval.painting import hint_metrics
from eval.rivals.examples import flood_fill
from eval.scoring import Scoring, Values, binding_metrics, sketch_metrics
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_json
from ragaf_exp.core.randomness import derive
from ragaf_exp.core.types import Batch, Example
from ragaf_exp.data.loader import Examples
from ragaf_exp.data.painting import random_hints
from ragaf_exp.evaluation.editing.study import Study, markdown
from ragaf_exp.evaluation.readers import readers
from ragaf_exp.inference.load import load_run
from ragaf_exp.inference.pipeline import Pipeline, SampledTensors
from ragaf_exp.runs import data_record
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import check_followed, follow
from ragaf_exp.tasks.paint import HINTED, HINTS

SHOWN = ("delta_e_hints", "wrong_followed", "sketch_f1", "binding_accuracy")
LESS = ("delta_e_hints", "wrong_followed")  # the lower, the better


def measure_run(
    run: Path, out: Path, count: int, guidance: Sequence[float], starts: Sequence[float], followed: dict[str, str]
) -> str:
    """Sample and score the first test items, and write the figures.

    Args:
        run: The run's folder.
        out: The JSON file.
        count: Number of items.
        guidance: Text guidance scales for items with wrong hints.
        starts: Shares of the noise schedule for SDEdit.
        followed: Config keys that name files or networks, which the command line repeats, and their values.

    Returns:
        The figures as a Markdown table.

    Raises:
        UserError: The run's task has no hints.
    """
    folder, cfg = RunFolder.read(run)
    cfg = follow(folder, cfg, followed)
    check_followed(folder, cfg, ("data",))
    parts, pipeline = load_run(folder, cfg)
    if HINTS not in parts.task.maps:
        raise UserError(f"{run}: its task has no colour hints; give a run of task=paint")
    data_record.check(folder.path, parts.source)
    examples = parts.conditioned(Examples(parts.source.split("test"), parts.prepare)).first(count)
    study = Study(parts, pipeline, examples, readers(cfg, parts)[0])
    measure_guidance(study, guidance)
    measure_starts(study, starts)
    write_json(out, {"schema": 1, "run": str(folder.path), "items": len(examples), "figures": study.figures})
    return markdown(study.figures)


def measure_guidance(study: Study, scales: Sequence[float]) -> None:
    """Add figures of items whose hints are all wrong, by the guidance of the caption."""
    wrong = [_with_wrong_hints(example) for example in study.examples]
    sampler, before = study.pipeline.sampler, study.pipeline.sampler.guidance
    for scale in scales:
        sampler.guidance = scale
        images = study.sample(wrong, f"wrong hints at guidance {scale:g}")
        _add(study, f"guidance_{scale:g}", f"all hints wrong, guidance {scale:g}", images, wrong)
    sampler.guidance = before


def measure_starts(study: Study, starts: Sequence[float]) -> None:
    """Add figures of the run as it is, and of SDEdit from each start, on the same items."""
    examples = study.examples
    _add(study, "paint", "the run", study.sample(examples, "the run"), examples)
    filled = [flood_fill(example) for example in examples]
    _add(study, "flood_fill", "hints filled by region", filled, examples)
    pipeline = study.pipeline
    for start in starts:
        study.pipeline = SDEdit(pipeline, start)
        started = [replace(e, item=replace(e.item, image=image)) for e, image in zip(examples, filled, strict=True)]
        images = study.sample(started, f"SDEdit from {start:g}")
        _add(study, f"sdedit_{start:g}", f"SDEdit from {start:g} of the noise", images, examples)
    study.pipeline = pipeline


class SDEdit(Pipeline):
    """Samples with the last stage from the batch's own images, with the hints dropped.

    Args:
        pipeline: The pipeline of the run.
        start: Share of the noise schedule, in (0,1].
    """

    def __init__(self, pipeline: Pipeline, start: float):
        self.__dict__.update(pipeline.__dict__)
        self.start = start

    @torch.no_grad()
    def __call__(self, batch: Batch, watch: object = None) -> SampledTensors:
        """Sample a batch, whose images are where sampling starts."""
        batch = batch.to(self.compute.device)
        dropped = {**batch.conditions, HINTED: torch.zeros_like(batch.conditions[HINTED])}
        with self.compute:
            start, noise = self.codec.encode(batch.image), self._noise(self.stages[-1], batch)
            batch = replace(batch, conditions=dropped)
            latent, _ = self.sampler.sample(self.last, batch, noise, start, self.start)
            image = self.last.inputs.finish(self.codec.decode(latent), batch)
        return SampledTensors({self.stages[-1].spec.image: image})


def _with_wrong_hints(example: Example) -> Example:
    """An example whose marks all have another colour than the truth."""
    rng = np.random.default_rng(derive(0, "wrong hints", example.item.key))
    hints, hinted = random_hints(rng, example.item.image, wrong=1.0)
    return replace(example, conditions={HINTS: hints, HINTED: hinted})


def _add(study: Study, name: str, meaning: str, images: Sequence[np.ndarray], examples: Sequence[Example]) -> None:
    """Add the figures of images, each with its interval."""
    values = _values(images, examples, study.reader, study.parts.cfg.seed)
    for metric in (metric for metric in SHOWN if metric in values):
        of_items = [_listed(value) for value in values[metric]]
        study.add(f"{name}/{metric}", meaning, of_items, higher_is_better=metric not in LESS)


def _listed(value: float | list[float | None] | None) -> list[float]:
    """The numbers of an item, which has one or one per object."""
    several = value if isinstance(value, list) else [value]
    return [number for number in several if number is not None]


def _values(images: Sequence[np.ndarray], examples: Sequence[Example], reader: EdgeReader, seed: int) -> Values:
    scoring = Scoring(images, examples, reader, seed)
    return hint_metrics(scoring) | sketch_metrics(scoring) | binding_metrics(scoring)
