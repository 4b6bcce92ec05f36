"""The evaluation half of a run: sample the test split, score it, save pictures of it."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.compose import OUTPUT_KEYS
from ragaf_exp.config.moved import original
from ragaf_exp.core.files import write_json
from ragaf_exp.data.buckets import same_size
from ragaf_exp.data.fit import resampling_of
from ragaf_exp.data.loader import Examples, collate
from ragaf_exp.data.sizes import size_text
from ragaf_exp.evaluation.fusion import fusion_curve
from ragaf_exp.evaluation.readers import readers
from ragaf_exp.evaluation.samples import SampleCache, fingerprint
from ragaf_exp.evaluation.score import EvaluationContext, evaluate
from ragaf_exp.evaluation.test_pictures import TestPictures
from ragaf_exp.inference.attention_recorder import record_attention
from ragaf_exp.inference.load import load_run
from ragaf_exp.inference.pipeline import Pipeline
from ragaf_exp.models.model import Model
from ragaf_exp.runs import data_record
from ragaf_exp.runs.checkpoints import newest_checksums
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import check_followed
from ragaf_exp.tasks.base import resolved
from ragaf_exp.viz.attention_steps import save_attention

KINDS = ("sizes", "tasks")  # of the items of a split, where they differ: see data.buckets.kinds_of
ATTENTION = 2  # test items whose attention over the timesteps is saved
EXAMPLES_MB = 500  # of test examples in memory: beyond that they are prepared again for each figure


def evaluate_run(folder: RunFolder, cfg: DictConfig) -> dict[str, Any]:
    """Sample the test split and score it; writes metrics.json, items.jsonl, samples/test and samples/fusion.json."""
    check_followed(folder, cfg, ("data", "eval"))
    parts, pipeline = load_run(folder, cfg)
    data_record.check(folder.path, parts.source)
    items = _Head(parts.source.split("test"), cfg.eval.test_items)
    examples = parts.conditioned(Examples(items, parts.prepare, EXAMPLES_MB))
    last = pipeline.last
    context = evaluation_context(cfg, parts, last)
    show = TestPictures(folder.samples, cfg.eval.pictures, last.text, parts.task.panels, context.rivals)
    cache = SampleCache(folder.samples / "drawn", _fingerprint(folder, cfg, parts.source), folder.mark_progress)
    context.networks.check()
    training, prompted = parts.source.split("train"), cfg.eval.prompted_items
    content = evaluate(folder, pipeline, examples, cfg.eval.batch, context, cache, show, training, prompted)
    show.write_index()
    shown = min(ATTENTION, cfg.eval.pictures)
    cache.run_once(f"attention-{shown}", lambda: _save_attention(folder, parts, pipeline, examples.first(shown), last))
    if last.ragaf is not None:
        first = examples.first(cfg.eval.batch)
        batch = collate([first[i] for i in same_size(first, len(first))[0]], last.needs_spans).to(pipeline.compute.device)
        with torch.no_grad():
            regions = last.condition(batch).regions
        write_json(folder.samples / "fusion.json", fusion_curve(last, regions), own=True)
    return content


def _save_attention(folder: RunFolder, parts: Parts, pipeline: Pipeline, examples: list, model: Model) -> None:
    """Save the attention of words over the timesteps, next to the other pictures of the first test items."""
    if not examples:
        return
    for rows in same_size(examples, len(examples)):
        with record_attention(model, parts.diffusion) as recorder:
            pipeline(collate([examples[i] for i in rows], model.needs_spans))
        for row, i in enumerate(rows):
            target = folder.samples / "test" / f"{i:04d}"
            save_attention(target, examples[i], recorder.frames(), row, model.text, parts.codec, own=True)


def evaluation_context(cfg: DictConfig, parts: Parts, model: Model) -> EvaluationContext:
    """Build what images are scored with from a config.

    Args:
        cfg: The run's config.
        parts: Its components.
        model: The last stage's model, for its text encoder.
    """
    weights = "raw" if cfg.memory.ema == "off" else "ema"
    measured_with = {"weights": weights, "seed": cfg.seed, "split": "test", "resolution": _resolution(cfg),
                     "resamples": cfg.eval.bootstrap}  # fmt: skip
    metrics = [resolved(metric) for metric in parts.task.metrics]
    rivals = {name: resolved(rival) for name, rival in parts.task.rivals.items()}
    shuffles = [condition for condition in parts.task.conditions if condition.name in parts.task.shuffles]
    context = (model.text.token_spans, parts.codec.downscale, measured_with, metrics, rivals, shuffles)
    return EvaluationContext(*readers(cfg, parts), *context)


def _resolution(cfg: DictConfig) -> int | str:
    """The size of the images: a number for squares, else width x height, or that they are of many sizes."""
    if cfg.data.get("buckets"):
        return f"buckets of {cfg.data.size}"
    width = cfg.data.get("width") or cfg.data.size
    return cfg.data.size if width == cfg.data.size else size_text(cfg.data.size, width)


def _fingerprint(folder: RunFolder, cfg: DictConfig, source: Any) -> str:
    """Fingerprint of everything that determines the sampled images: weights, data, conditions and sampler."""
    settings = original(OmegaConf.to_container(cfg))
    settings = {key: value for key, value in settings.items() if key not in (*OUTPUT_KEYS, "eval", "optim", "loss")}
    resampling = resampling_of(source)
    photos = [resampling] if resampling else []
    return fingerprint(settings, cfg.eval.batch, newest_checksums(folder.checkpoints), *photos)


class _Head:
    """The first `count` items of a split, or all if count is 0."""

    def __init__(self, items, count: int):
        self.items = items
        self.count = min(len(items), count) if count else len(items)
        kinds = (getattr(items, name, None) for name in KINDS)
        self.sizes, self.tasks = (None if each is None else each[: self.count] for each in kinds)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        return self.items[index]
