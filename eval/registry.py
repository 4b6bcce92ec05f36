"""The registry of metrics: what each figure of metrics.json is called, means, and where it is shown.

A new metric is one entry here and one function. A score of an image against its reference picture names that function in
`score` and is then measured wherever MSE is: of a run, of a folder, of damaged images. Evaluation, difficulty groups, the
reports of a run, a study and a sweep, and the tests read this table and hold no list of metrics themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TypeAlias

COLOURS, SKETCH, ATTENTION, IMAGE = "Colours and fills", "Sketch", "Attention", "Image"
CONTROLS = "Controls"  # of controls.json, where the conditions were changed
EDITS = "Edits"  # of tasks that change an image: within the hole, or by the correction
GROUPS = (COLOURS, SKETCH, ATTENTION, IMAGE, EDITS, CONTROLS)  # in the order of tables

DIFFICULTY = "difficulty"  # thirds of the items or objects, by how hard they are: eval.difficulty
BINDING = "binding_accuracy"
SCENES = "scenes"  # kinds of objects in a scene: eval.metrics.binding.binding_splits

HEADLINE = "headline"  # cards of a run's report, charts of a comparison
STUDY = "study"  # columns of a study's tables
RATIO = "ratio"  # also as the ratio of full to baseline
CURVE = "curve"  # learning curves of a study
SWEEP = "sweep"  # columns of a sweep's report
VALIDATION = "validation"  # measured on the validation grid while training

MAIN = (HEADLINE, STUDY, CURVE, SWEEP, VALIDATION)
if TYPE_CHECKING:
    import numpy as np

ImageScore: TypeAlias = "Callable[[np.ndarray, np.ndarray], float]"  # of an image and its reference, both (H,W,3) uint8


@dataclass(frozen=True)
class Metric:
    """One figure of metrics.json."""

    name: str
    title: str
    meaning: str
    group: str
    higher_is_better: bool = True
    grouped_by: tuple[str, ...] = ()  # DIFFICULTY, SCENES
    shown: tuple[str, ...] = ()  # beyond the table of all figures, where every metric is
    chance: Mapping[str, str] = field(default_factory=dict)  # figures of no skill, each with its meaning or ""
    min_n: int = 1  # the smallest sample: images of either set, items or objects
    share: bool = True  # lies in [0, 1] and gets a bar
    unit: str = ""
    digits: int = 3
    quartiles: bool = False  # its figure also has the quartiles of the items
    score: str = ""  # "module:function", an ImageScore; empty where eval.scoring or eval.networks measures it


_ENTRIES = (
    Metric(BINDING, "Binding accuracy", "objects with the colour the caption gives them", COLOURS,
           grouped_by=(DIFFICULTY, SCENES), shown=MAIN),
    Metric("binding_accuracy_heldout", "Binding, held-out", "colour-shape pairs never seen in training", COLOURS,
           shown=(HEADLINE, STUDY, SWEEP)),
    Metric("binding_accuracy_repeated", "Binding, repeated", "objects whose shape the scene holds twice", COLOURS,
           shown=(STUDY,)),
    Metric("leak_rate", "Leak rate", "objects that took another object's colour", COLOURS, higher_is_better=False,
           grouped_by=(DIFFICULTY, SCENES), shown=(*MAIN, RATIO)),
    Metric("binding_accuracy_prompted", "Binding, region prompts", "with each object's phrase as its region's prompt",
           COLOURS, shown=(STUDY,)),
    Metric("leak_rate_prompted", "Leaks, region prompts", "with each object's phrase as its region's prompt", COLOURS,
           higher_is_better=False),
    Metric("sketch_f1", "Sketch F1", "agreement of the image's edges with the strokes", SKETCH, grouped_by=(DIFFICULTY,),
           shown=MAIN, chance={"sketch_f1_shuffled": "the same against another item's sketch"}),
    Metric("sketch_precision", "Sketch precision", "edges of the image that lie on a stroke", SKETCH,
           chance={"sketch_precision_shuffled": ""}),
    Metric("sketch_recall", "Sketch recall", "strokes that an edge of the image lies on", SKETCH,
           chance={"sketch_recall_shuffled": ""}),
    Metric("edge_ms_ssim", "Soft edges, MS-SSIM", "likeness of strokes and edges over scales", SKETCH,
           chance={"edge_ms_ssim_shuffled": ""}),
    Metric("chamfer", "Chamfer distance", "gap of edges and strokes, in diagonals", SKETCH, higher_is_better=False,
           chance={"chamfer_shuffled": ""}, share=False, digits=4),
    Metric("pointing_accuracy", "Pointing accuracy", "a phrase's strongest region is its object", ATTENTION,
           grouped_by=(DIFFICULTY,), shown=(HEADLINE, STUDY, SWEEP),
           chance={"pointing_accuracy_uniform": "", "pointing_accuracy_shuffled": ""}),
    Metric("pointing_accuracy_repeated", "Pointing, repeated", "objects whose shape the scene holds twice", ATTENTION,
           shown=(STUDY,)),
    Metric("attention_iou", "Attention IoU", "overlap of a phrase's map with its object", ATTENTION,
           chance={"attention_iou_uniform": "", "attention_iou_shuffled": ""}),
    Metric("attention_entropy", "Attention entropy", "0: all on one word, 1: even on all", ATTENTION,
           higher_is_better=False),
    Metric("fill_accuracy", "Fill accuracy", "plain, striped, dotted, hollow as the caption says", COLOURS,
           grouped_by=(DIFFICULTY, SCENES), shown=(HEADLINE, STUDY)),
    Metric("instance_success", "Instance success", "objects painted within their mask in their colour: COCO-MIG's rule",
           COLOURS, grouped_by=(SCENES,), shown=(STUDY,)),
    Metric("instance_iou", "Instance IoU", "overlap of mask and painted object, 0 without instance success", COLOURS,
           grouped_by=(SCENES,)),
    Metric("fid", "FID", "distance of Inception features", IMAGE, higher_is_better=False, shown=(HEADLINE, SWEEP),
           min_n=4, share=False, digits=2),
    Metric("kid", "KID", "kernel distance of Inception features", IMAGE, higher_is_better=False, min_n=4, share=False,
           digits=4),
    Metric("fd_squeezenet", "FD, SqueezeNet", "distance of SqueezeNet features", IMAGE, higher_is_better=False, min_n=4,
           share=False, digits=2),
    Metric("fd_embedded", "FD, embedded", "distance of a small network's features", IMAGE, higher_is_better=False,
           shown=(SWEEP,), min_n=4, share=False, digits=2),
    Metric("u_ids", "U-IDS", "errors of a linear classifier of real and generated images, by Inception", IMAGE, min_n=4),
    Metric("p_ids", "P-IDS", "pairs in which that classifier takes the image for the more realistic one", IMAGE, min_n=4),
    Metric("u_ids_embedded", "U-IDS, embedded", "the same by a small network's features", IMAGE, min_n=4),
    Metric("p_ids_embedded", "P-IDS, embedded", "the same by a small network's features", IMAGE, min_n=4),
    Metric("clip_score", "CLIP score", "agreement of image and caption, of 100", IMAGE, shown=(HEADLINE, SWEEP),
           chance={"clip_score_shuffled": "the same for another item's caption"}, share=False, digits=2),
    Metric("clip_directional", "CLIP, direction of the edit", "agreement of both changes, -1 to 1", IMAGE,
           chance={"clip_directional_shuffled": ""}, share=False),
    Metric("region_clip_accuracy", "Region CLIP", "regions whose crop ranks its own phrase first", COLOURS,
           chance={"region_clip_chance": "the same by guessing"}),
    Metric("lpips", "LPIPS", "perceptual distance to the truth", IMAGE, higher_is_better=False, grouped_by=(DIFFICULTY,),
           shown=(SWEEP,), share=False),
    Metric("ssim", "SSIM", "structural similarity to the truth", IMAGE, grouped_by=(DIFFICULTY,),
           shown=(HEADLINE, VALIDATION), score="eval.metrics.image:ssim"),
    Metric("psnr", "PSNR", "signal-to-noise ratio against the truth", IMAGE, shown=(HEADLINE,), share=False, unit=" dB",
           digits=2, score="eval.metrics.image:psnr"),
    Metric("mse", "MSE", "mean squared error on [0, 1]", IMAGE, higher_is_better=False, share=False, digits=4,
           score="eval.metrics.image:mse"),
    Metric("seam_ratio", "Seam ratio", "change across patch borders over change within", IMAGE, higher_is_better=False,
           share=False),
    Metric("psnr_hole", "PSNR in the hole", "signal-to-noise ratio of the painted pixels", EDITS, share=False, unit=" dB",
           digits=2),
    Metric("ssim_hole", "SSIM in the hole", "local structural similarity, averaged over the hole", EDITS),
    Metric("l1_hole", "L1 in the hole", "mean absolute error of the painted pixels, of 1", EDITS, higher_is_better=False,
           digits=4),
    Metric("lpips_hole", "LPIPS in the hole", "perceptual distance to the truth, averaged over the hole", EDITS,
           higher_is_better=False, share=False),
    Metric("kept_unchanged", "Kept unchanged", "images with every byte outside the hole as given", EDITS),
    Metric("still_visible", "Still visible", "removed objects whose colour is still there", EDITS, higher_is_better=False),
    Metric("psnr_shadow", "PSNR in the shadow", "the same where the removed object cast its shadow", EDITS, share=False,
           unit=" dB", digits=2),
    Metric("hidden_binding", "Hidden binding", "objects hidden by the hole that got the caption's colour", EDITS),
    Metric("object_colour", "Object's colour", "inserted objects with the colour of their picture", EDITS,
           chance={"object_colour_shuffled": "the same with another item's object picture"}),
    Metric("object_shape", "Object's shape", "inserted objects with the shape of their picture", EDITS,
           chance={"object_shape_shuffled": "the same with another item's object picture"}),
    Metric("object_fill", "Object's fill", "inserted objects with the colour and fill of their picture", EDITS,
           chance={"object_fill_shuffled": "the same with another item's object picture"}),
    Metric("delta_e_hints", "Delta E at hints", "mean CIEDE2000 difference to the colour hints that are right", EDITS,
           higher_is_better=False, share=False, digits=2),
    Metric("wrong_followed", "Wrong hints followed", "pixels of wrong hints that took their colour, not the truth's", EDITS,
           higher_is_better=False),
    Metric("delta_e_2000", "Delta E 2000", "mean CIEDE2000 colour difference to the truth", EDITS, higher_is_better=False,
           share=False, digits=2, quartiles=True),
    Metric("angular_error", "Angular error", "mean angle of the pixels' colours to the truth's", EDITS,
           higher_is_better=False, share=False, unit="°", digits=2, quartiles=True),
    Metric("mse_255", "MSE, 0 to 255", "mean squared error on 0 to 255", EDITS, higher_is_better=False, share=False,
           digits=1, quartiles=True),
    Metric("mired_error", "Light, mired", "error of the wrong light's colour temperature, by the correction", EDITS,
           higher_is_better=False, share=False, digits=1, quartiles=True),
    Metric("followed", "Followed", "objects with a new colour word that took the new colour", CONTROLS),
    Metric("kept_old", "Kept the old colour", "objects with a new colour word that kept the old colour", CONTROLS,
           higher_is_better=False),
    Metric("others_bound", "Others bound", "other objects, with their colour", CONTROLS),
    Metric("others_changed", "Others changed", "other objects whose colour changed", CONTROLS, higher_is_better=False),
    Metric("change_outside", "Change outside", "mean absolute change of pixels outside the object, of 1", CONTROLS,
           higher_is_better=False),
    Metric("change_inside", "Change inside", "the same inside it", CONTROLS),
)  # fmt: skip
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ENTRIES}


def metric_of(name: str) -> Metric | None:
    """The metric that a figure of this name belongs to, as its value or as its chance level; None for an unknown name."""
    return METRICS.get(name) or next((metric for metric in METRICS.values() if name in metric.chance), None)


def higher_is_better(name: str) -> bool:
    """The direction of a metric, its chance level and task/metric. KeyError for an unknown name."""
    metric = metric_of(name.rpartition("/")[2])
    if metric is None:
        raise KeyError(f"{name}: no such metric in eval/registry.py")
    return metric.higher_is_better


def grouped(by: str) -> list[str]:
    """Names of the metrics that have figures for each group of this kind."""
    return [name for name, metric in METRICS.items() if by in metric.grouped_by]


def shown(where: str) -> list[str]:
    """Names of the metrics that are shown there, in order."""
    return [name for name, metric in METRICS.items() if where in metric.shown]


def in_group(group: str, chance: bool = False) -> list[str]:
    """Names of a group's metrics; chance: each followed by its chance levels."""
    members = [metric for metric in METRICS.values() if metric.group == group]
    return [name for metric in members for name in (metric.name, *(metric.chance if chance else ()))]


def image_scores() -> dict[str, ImageScore]:
    """The functions that score an image against its reference, by the names of their metrics in alphabetical order."""
    return {name: resolve_name(METRICS[name].score) for name in sorted(METRICS) if METRICS[name].score}
