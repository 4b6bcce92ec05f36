"""Computes a run's figures: samples its test items, scores every image, writes metrics.json and items.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from eval import networks, scoring
from eval.edges import EdgeReader
from eval.edits import holes_of
from eval.images import ImageSet
from eval.items import ItemRow, row_of, write_items
from eval.metrics.binding import binding_splits
from eval.metrics.image import seam_ratio
from eval.metrics.sketch_fidelity import tolerance_px
from eval.registry import BINDING, METRICS, SKETCH, in_group
from eval.results import SCHEMA, Result, groups_of, phrase_regions
from eval.scoring import Scoring
from ragaf_exp.config.stages import IMAGES
from ragaf_exp.core.files import write_json
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.buckets import batches_of, kinds_of
from ragaf_exp.data.loader import Examples, collate
from ragaf_exp.evaluation.overlap import check_finite, check_train_test_overlap
from ragaf_exp.evaluation.prompted import prompted_values
from ragaf_exp.evaluation.samples import CachedSamples, SampleCache
from ragaf_exp.evaluation.shuffled import shuffled_images
from ragaf_exp.inference.pipeline import REGION_TEXT, Pipeline, SampledImages, SampledTensors
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.tasks.base import Condition


@dataclass
class EvaluationContext:
    """Everything that images are scored with, and the facts to record with every figure."""

    reader: EdgeReader
    networks: networks.Networks
    token_spans: Callable[[str], list[tuple[int, int]]]  # caption -> characters of its tokens
    patch: int  # image pixels per latent pixel
    measured_with: dict[str, Any] = field(default_factory=dict)  # recorded with every figure
    metrics: Sequence[Callable[[Scoring], scoring.Values]] = ()  # the task's
    rivals: Mapping[str, Callable[[Example], np.ndarray]] = field(default_factory=dict)  # the task's
    shuffles: Sequence[Condition] = ()  # conditions that are exchanged between items, for figures without skill


def evaluate(
    folder: RunFolder, pipeline: Pipeline, examples: Examples, batch: int, context: EvaluationContext, cache: SampleCache,
    show: Callable[[int, Example, SampledImages, int], None], training: Sequence[Item] = (), prompted: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Sample and score the test items; writes metrics.json and items.jsonl.

    Args:
        folder: The run's folder.
        pipeline: The trained run.
        examples: The test items.
        batch: Items per batch.
        context: Everything that images are scored with.
        cache: The samples' cache.
        show: Called with (index, example, its batch's images, row in the batch).
        training: The training split, to check for overlap with the test items.
        prompted: Number of items that are also sampled with region prompts, where a stage has regions.

    Returns:
        The content of metrics.json.
    """
    kinds = kinds_of(examples.items)
    batches = batches_of([None] * len(examples) if kinds is None else kinds, batch)
    examples = LazyItems(examples.__getitem__, len(examples))
    sampled, rows = _sample(pipeline, examples, batches, cache, show)
    result = Result(rows)
    stages = {name: sampled.of(name) for name in reversed(IMAGES) if sampled.has(name)}
    truth = LazyItems(lambda i: examples[i].item.image, len(examples))
    warnings, overlap = check_train_test_overlap(stages, truth, [row.key for row in rows], training)
    for number, (stage, images) in enumerate(stages.items()):
        maps = sampled.of(REGION_TEXT) if number == 0 and sampled.has(REGION_TEXT) else None
        score_stage(result, examples, images, maps, context, prefix="" if number == 0 else f"{stage}/")
    if pipeline.has_regions and prompted:
        first = [[i for i in indices if i < prompted] for indices in batches]
        values = prompted_values(examples, rows, first, cache, partial(_images, pipeline))
        result.add(values, {}, context.measured_with, "")
    for condition in context.shuffles:
        images = shuffled_images(examples, rows, batches, condition, cache, partial(_images, pipeline))
        result.add(_chance(Scoring(images, examples, context.reader, context.measured_with["seed"]), context), {},
                   context.measured_with, "")  # fmt: skip
    for name, rival in context.rivals.items():
        score_stage(result, examples, [rival(example) for example in examples], None, context, prefix=f"{name}/")
    write_items(folder.path / "items.jsonl", result.rows)
    return _write(folder, result, context.measured_with["resamples"], warnings, overlap)


def score_stage(
    result: Result, examples: Sequence[Example], images: Sequence[np.ndarray], maps: Sequence[np.ndarray] | None,
    context: EvaluationContext, prefix: str,
) -> None:  # fmt: skip
    """Compute every metric of one stage's images.

    Args:
        result: Receives values and figures.
        examples: The test items.
        images: The stage's images, (H,W,3) uint8 each; read one by one.
        maps: (N,T) attention of each item's regions to tokens; None if there is none.
        context: Everything that images are scored with.
        prefix: Of the metrics' names, "" for the last stage, or as "STAGE/".
    """
    items = LazyItems(lambda i: examples[i].item, len(examples))
    truth = LazyItems(lambda i: examples[i].item.image, len(examples))
    values = scoring.pixel_values(images, truth) | scoring.seam_values(images, context.patch)
    with tqdm(total=len(images), desc=f"scoring {prefix or 'the last stage'}", unit="image") as bar:
        s = Scoring(images, examples, context.reader, context.measured_with["seed"], context.token_spans, maps, bar.update)
        for metric in context.metrics:
            values |= metric(s)
    if BINDING in values:
        result.splits = result.splits or binding_splits(s.scenes, **context.measured_with)  # the last stage comes first
    result.add(values, _facts(truth, context), context.measured_with, prefix)
    keys, captions = [row.key for row in result.rows], [item.caption for item in items]
    sampled, real = ImageSet.arrays(images, keys, "sampled images"), ImageSet.arrays(truth, keys, "test images")
    result.take(context.networks.measure(sampled, real, captions, phrase_regions(items)), context.measured_with, prefix)
    result.take(context.networks.lpips(sampled, real, holes_of(examples)), context.measured_with, prefix)


def _chance(scoring_of: Scoring, context: EvaluationContext) -> scoring.Values:
    """Values of the task's metrics that have a chance level by shuffling, under the chance level's name."""
    values: scoring.Values = {}
    for metric in context.metrics:
        values |= metric(scoring_of)
    names = {name: f"{name}_shuffled" for name in values if name in METRICS}
    return {chance: values[name] for name, chance in names.items() if chance in METRICS[name].chance}


def _sample(
    pipeline: Pipeline, examples: Sequence[Example], batches: list[list[int]], cache: SampleCache,
    show: Callable[[int, Example, SampledImages, int], None],
) -> tuple[CachedSamples, list[ItemRow]]:  # fmt: skip
    """Sample every batch, or read it from the cache. batches: indices of items of one size."""
    facts: dict[int, ItemRow] = {}
    sampled = CachedSamples(cache, partial(_images, pipeline), examples, batches)
    for indices in tqdm(batches, desc="sampling", unit="batch"):
        rows = [examples[i] for i in indices]
        of_batch = [row_of(example) for example in rows]
        facts |= zip(indices, of_batch, strict=True)
        images = sampled.add([f"{row.key} {row.image} {row.sketch}" for row in of_batch])
        for row, (index, example) in enumerate(zip(indices, rows, strict=True)):
            show(index, example, images, row)
    return sampled, [facts[i] for i in range(len(examples))]


def _images(pipeline: Pipeline, rows: Sequence[Example]) -> SampledImages:
    return _finite(pipeline(collate(list(rows), pipeline.last.needs_spans)), rows).to_images()


def _finite(generated: SampledTensors, rows: Sequence[Example]) -> SampledTensors:
    for images in generated.images.values():
        check_finite(images.float().cpu().numpy(), [example.item.key for example in rows])
    return generated


def _facts(truth: Sequence[np.ndarray], context: EvaluationContext) -> dict[str, dict[str, Any]]:
    shapes = {image.shape for image in truth}
    tolerance = {"tolerance_px": round(max(map(tolerance_px, shapes)), 3), "edges": context.reader.name}
    seams = {"truth": round(float(np.mean([seam_ratio(image, context.patch) for image in truth])), 4)}
    sketch = in_group(SKETCH, chance=True)
    return {**dict.fromkeys(sketch, tolerance), "seam_ratio": seams, "ssim": {"window": "uniform 7x7"}}


def _write(
    folder: RunFolder, result: Result, resamples: int, warnings: list[str], overlap: dict[str, int]
) -> dict[str, Any]:
    content = {
        "schema": SCHEMA, "run": f"{folder.origin.parent.name}/{folder.origin.name}", "config_hash": folder.origin.name,
        "metrics": result.metrics, "unavailable": result.unavailable,
        "warnings": warnings, "items": {"used": len(result.rows), "skipped": 0}, "training_overlap": overlap,
        "groups": groups_of(result, resamples),
    }  # fmt: skip
    write_json(folder.metrics, content)
    return content
