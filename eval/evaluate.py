"""A run's figures: sample the test split, score every image, write metrics.json and the report's pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from eval.bootstrap import figure
from eval.metrics import image as image_metrics
from eval.metrics.attention import PhraseAttention, phrase_attention
from eval.metrics.binding import ObjectBinding, bind, binding_figures
from eval.metrics.image import seam_ratio
from eval.metrics.sketch_fidelity import sketch_fidelity_set, tolerance_px
from ragaf_exp.data.loader import Examples, collate, eval_batches
from ragaf_exp.data.palette import BACKGROUND_COLOURS, OBJECT_COLOURS
from ragaf_exp.files import write_json
from ragaf_exp.generate import Generated, Pipeline, to_uint8
from ragaf_exp.runfolder import RunFolder
from ragaf_exp.types import Example

SCHEMA = 1
HIGHER_IS_BETTER = ("psnr", "ssim", "sketch_f1", "sketch_f1_shuffled")


@dataclass
class Scores:
    """What one stage's images of the test items scored, item by item."""

    images: list[np.ndarray] = field(default_factory=list)
    bindings: list[list[ObjectBinding]] = field(default_factory=list)
    attention: list[list[PhraseAttention]] = field(default_factory=list)

    def add(self, example: Example, image: np.ndarray) -> None:
        self.images.append(image)
        if can_bind(example):
            item = example.item
            self.bindings.append(
                bind(image, item.objects, item.object_map, OBJECT_COLOURS, BACKGROUND_COLOURS)
            )


def can_bind(example: Example) -> bool:
    """Whether the caption gives every object a colour that can be read back from pixels."""
    return bool(example.item.objects) and all(o.colour in OBJECT_COLOURS for o in example.item.objects)


def evaluate(
    folder: RunFolder, pipeline: Pipeline, examples: Examples, batch: int, token_spans: Callable,
    measured_with: dict[str, Any], show: Callable[[int, Example, Generated, int], None],
) -> dict[str, Any]:  # fmt: skip
    """Sample and score; returns and writes metrics.json.

    token_spans: caption -> characters of its tokens. measured_with: written beside every figure.
    show: called with (place, example, its batch's images, row) for every item, to keep pictures of some.
    """
    coarse, refine = Scores(), Scores()
    kept: list[Example] = []
    batches = eval_batches(examples, batch)
    for rows in tqdm(batches, total=-(-len(examples) // batch), desc="evaluating", unit="batch"):
        generated = pipeline(collate(rows))
        for scores, images in ((coarse, generated.stage1), (refine, generated.stage2)):
            for example, image in zip(rows, to_uint8(images) if images is not None else [], strict=False):
                scores.add(example, image)
        refine.attention += attention_scores(generated, rows, token_spans)
        for row, example in enumerate(rows):
            show(len(kept) + row, example, generated, row)
        kept += rows
    patch = pipeline.codec.downscale
    metrics = stage_figures(kept, refine, patch, measured_with) if refine.images else {}
    prefix = "stage1/" if metrics else ""
    if coarse.images:
        metrics |= {prefix + k: v for k, v in stage_figures(kept, coarse, patch, measured_with).items()}
    return _write(folder, metrics)


def stage_figures(
    examples: list[Example], scores: Scores, patch: int, measured_with: dict[str, Any]
) -> dict[str, Any]:
    """Entries of metrics.json for one stage. patch: image pixels per latent pixel."""
    truth = [e.item.image for e in examples]
    pairs = list(zip(scores.images, truth, strict=True))
    right, shuffled = sketch_fidelity_set([e.sketch for e in examples], scores.images)
    values = {
        **{name: [getattr(image_metrics, name)(*pair) for pair in pairs] for name in ("mse", "psnr", "ssim")},
        "sketch_f1": [f.f1 for f in right],
        "sketch_f1_shuffled": [f.f1 for f in shuffled],  # of a single item there is no other's sketch
        "chamfer": [f.chamfer for f in right],
        "seam_ratio": [seam_ratio(image, patch) for image in scores.images],
    }
    tolerance = {"tolerance_px": round(tolerance_px(truth[0].shape), 3)}
    seams = {"truth": round(float(np.mean([seam_ratio(image, patch) for image in truth])), 4)}
    facts = {"sketch_f1": tolerance, "sketch_f1_shuffled": tolerance, "seam_ratio": seams}
    found = binding_figures(scores.bindings, **measured_with) if scores.bindings else {}
    for name, of_items in values.items():
        if of_items:
            known = facts.get(name, {}) | measured_with
            found[name] = figure(of_items, higher_is_better=name in HIGHER_IS_BETTER, **known)
    return found | _attention_figures(scores.attention, measured_with)


def attention_scores(
    generated: Generated, rows: list[Example], token_spans: Callable
) -> Iterable[list[PhraseAttention]]:
    """Of each item with objects, the scores of its phrases; nothing where the model has no region path."""
    regions = generated.conditioning.regions
    if regions is None:
        return []
    maps = regions.region_text.float().cpu().numpy()  # (B,N,T)
    return [phrase_scores(e, m, token_spans(e.item.caption)) for e, m in zip(rows, maps, strict=True)]


def phrase_scores(
    example: Example, attention: np.ndarray, spans: list[tuple[int, int]]
) -> list[PhraseAttention]:
    """attention (N,T), padded; spans of the caption's tokens, which may be fewer than T."""
    found = []
    for thing in example.item.objects:
        tokens = [i for i, (a, b) in enumerate(spans) if a < thing.span[1] and b > thing.span[0]]
        mask = example.item.object_map == thing.label
        found.append(phrase_attention(attention, example.regions.labels, mask, tokens))
    return found


def _attention_figures(
    attention: list[list[PhraseAttention]], measured_with: dict[str, Any]
) -> dict[str, Any]:
    flat = [(i, score) for i, scores in enumerate(attention) for score in scores]
    if not flat:
        return {}
    clusters = [i for i, _ in flat]
    named = {"pointing_accuracy": [s.pointing for _, s in flat], "attention_iou": [s.iou for _, s in flat]}
    return {
        name: figure(values, clusters=clusters, higher_is_better=True, **measured_with)
        for name, values in named.items()
    }


def _write(folder: RunFolder, metrics: dict[str, Any]) -> dict[str, Any]:
    content = {"schema": SCHEMA, "run": f"{folder.path.parent.name}/{folder.path.name}",
               "config_hash": folder.path.name, "metrics": metrics}  # fmt: skip
    write_json(folder.metrics, content)
    return content
