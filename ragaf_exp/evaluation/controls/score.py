"""Samples a run's test items under every control and scores the effect, with intervals."""

from __future__ import annotations

from collections import Counter
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from eval.metrics.binding import ObjectBinding
from eval.metrics.fills import rim_px
from eval.registry import METRICS, higher_is_better
from eval.scoring import bindings, can_bind
from eval.statistics.bootstrap import figure
from eval.statistics.paired import paired_differences
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_json, write_text
from ragaf_exp.core.markdown import table
from ragaf_exp.core.randomness import derive
from ragaf_exp.core.types import Example
from ragaf_exp.data.buckets import batches_of
from ragaf_exp.data.loader import collate
from ragaf_exp.evaluation.controls.interventions import CONTROLS, Changed
from ragaf_exp.inference.load import load_run
from ragaf_exp.inference.pipeline import Pipeline
from ragaf_exp.runs import data_record
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import check_followed, follow
from ragaf_exp.viz.grids import grid
from ragaf_exp.viz.panels import save_png

SCHEMA = 1
SHOWN = 8  # items in the picture
ControlImages = list[np.ndarray | None]  # of one control, by item; None if the change does not apply
Values = dict[str, list[list[float] | None]]  # of each figure, by item: one value for each object or region, or None


def run_controls(run: Path, out: Path | None, count: int, followed: dict[str, str] | None = None) -> list[Path]:
    """Sample and score the first `count` test items under every control.

    Args:
        run: The run's folder.
        out: The JSON file to write; None for the run's controls.json.
        count: Number of items.
        followed: Config keys that name files or networks, which the command line repeats, and their values.

    Returns:
        Paths of the JSON file, the Markdown table and the picture.

    Raises:
        UserError: If the run's captions name no known objects and colours.
    """
    folder, cfg = RunFolder.read(run)
    cfg = follow(folder, cfg, followed or {})
    check_followed(folder, cfg, ("data",))
    parts, pipeline = load_run(folder, cfg)
    data_record.check(folder.path, parts.source)
    split = parts.examples("test")
    examples = [split[i] for i in range(min(count, len(split)))]
    if len(examples) < 2 or not all(can_bind(e.item) for e in examples):
        raise UserError(f"{run}: its captions give no known objects a colour; train on data=scenes or recoloured openmoji")
    controls = {name: c for name, c in CONTROLS.items() if pipeline.last.ragaf is not None or not c.regions}
    changed = {name: _changed(name, examples, cfg.seed) for name in controls}
    sampled = {name: sample(with_step_share(pipeline, controls[name].steps), of, cfg.eval.batch, name)
               for name, of in changed.items()}  # fmt: skip
    content = {"schema": SCHEMA, "run": f"{folder.path.parent.name}/{folder.path.name}", "items": len(examples),
               "seed": cfg.seed, "weights": "ema", "chance": round(chance(examples), 4),
               "controls": score_controls(examples, changed, sampled, cfg.eval.bootstrap)}  # fmt: skip
    out = out or folder.path / "controls.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, content)
    write_text(out.with_suffix(".md"), markdown(content))
    save_png(out.with_suffix(".png"), picture(examples, changed, sampled))
    return [out, out.with_suffix(".md"), out.with_suffix(".png")]


def with_step_share(pipeline: Pipeline, share: float) -> Pipeline:
    """The pipeline with this share of the sampler's steps, at least one."""
    copied = copy(pipeline)
    copied.sampler = copy(pipeline.sampler)
    copied.sampler.steps = max(1, int(share * pipeline.sampler.steps))
    return copied


def _changed(name: str, examples: list[Example], seed: int) -> list[Changed | None]:
    """Apply a control to all examples. Random choices depend on the seed and the item's key only."""
    change = CONTROLS[name].change
    befores = [examples[-1], *examples[:-1]]
    return [change(e, before, np.random.default_rng(derive(seed, "controls", name, e.item.key)))
            for e, before in zip(examples, befores, strict=True)]  # fmt: skip


def sample(pipeline: Pipeline, changed: list[Changed | None], batch: int, name: str) -> ControlImages:
    """Sample all items under one control. Each item's noise is the same under every control.

    Args:
        pipeline: The trained run.
        changed: The items under the control; None if it does not apply.
        batch: Items per batch.
        name: Of the control, for the progress bar.

    Returns:
        The last stage's images (H,W,3) uint8; None for items that the control does not apply to.
    """
    rows_changed = [i for i, c in enumerate(changed) if c is not None]
    images_of: ControlImages = [None] * len(changed)
    batches = batches_of([changed[i].example.sketch.shape for i in rows_changed], batch)
    for indices in tqdm(batches, desc=f"sampling {name}", unit="batch"):
        rows = [rows_changed[i] for i in indices]
        images = pipeline(collate([changed[i].example for i in rows], pipeline.last.needs_spans)).to_images().final
        for i, image in zip(rows, images, strict=True):
            images_of[i] = image
    return images_of


def chance(examples: list[Example]) -> float:
    """Probability that two random objects have the same wanted colour: binding accuracy of guessing by frequency."""
    wanted = Counter(thing.colour for e in examples for thing in e.item.objects)
    total = sum(wanted.values())
    return sum((count / total) ** 2 for count in wanted.values())


def score_controls(
    examples: list[Example], changed: dict[str, list[Changed | None]], sampled: dict[str, ControlImages], resamples: int
) -> dict[str, Any]:
    """Figures of every control, with paired differences to `right` for figures of the same objects.

    Args:
        examples: The test items.
        changed: The items under each control, by its name.
        sampled: The images under each control.
        resamples: Of the bootstrap.

    Returns:
        By control: `what`, `figures` and `difference`, as in controls.json.
    """
    keys = [e.item.key for e in examples]
    before = [bindings(image, c.judged) for image, c in zip(sampled["right"], changed["right"], strict=True)]
    known: dict[str, Values] = {}
    for name, of in changed.items():
        rows = zip(of, sampled[name], sampled["right"], before, strict=True)
        scored = [c and _score(c, image, plain, was) for c, image, plain, was in rows]
        figures = dict.fromkeys(figure for values in scored if values for figure in values)
        known[name] = {f: [values and values.get(f) for values in scored] for f in figures}
    content = {}
    for name, values in known.items():
        entry: dict[str, Any] = {"what": CONTROLS[name].what, "figures": {}, "difference": {}}
        for f, of_items in values.items():
            if not any(of_items):  # for example, all scenes have two objects and both were changed
                continue
            entry["figures"][f] = _figure(of_items, keys, higher_is_better(f), resamples)
            same = known["right"].get(f)
            if name != "right" and same is not None and all(v is not None for v in of_items):
                entry["difference"][f] = asdict(paired_differences([same, of_items], resamples=resamples)[0])
        content[name] = entry
    return content


def _score(
    changed: Changed, image: np.ndarray, plain: np.ndarray, before: list[ObjectBinding]
) -> dict[str, list[float] | None]:
    """Values of one item. image: under the control; plain: without it."""
    now = bindings(image, changed.judged)
    if not changed.touched:
        return {"binding_accuracy": [float(b.correct) for b in now], "leak_rate": [float(b.leaked) for b in now]}
    places = range(len(now))
    others = [i for i in places if i not in changed.touched]
    values = {
        "followed": [float(now[i].correct) for i in changed.touched],
        "kept_old": [float(now[i].detected_colour == before[i].object.colour) for i in changed.touched],
        "others_bound": [float(now[i].correct) for i in others],
        "others_changed": [float(now[i].detected_colour != before[i].detected_colour) for i in others],
    }
    if len(changed.touched) == 1:
        inside = changed.judged.object_map == now[changed.touched[0]].object.label
        values |= {f"change_{where}": [value] for where, value in spread(image, plain, inside).items()}
    return {name: values or None for name, values in values.items()}


def spread(image: np.ndarray, plain: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Mean absolute difference of two images inside and outside of a mask, on the scale [0, 1].

    Args:
        image: (H,W,3) uint8.
        plain: (H,W,3) uint8.
        mask: (H,W) bool. Outside excludes its rim, where the object blends into the background.
    """
    rim = 2 * int(np.ceil(rim_px(mask.shape))) + 1
    wide = cv2.dilate(mask.astype(np.uint8), np.ones((rim, rim), np.uint8)) > 0
    change = np.abs(image.astype(np.float32) - plain.astype(np.float32)).mean(-1) / 255
    return {"inside": float(change[mask].mean()), "outside": float(change[~wide].mean()) if not wide.all() else 0.0}


def _figure(values: list[list[float] | None], keys: list[str], better: bool, resamples: int) -> dict[str, Any]:
    pairs = [(v, key) for of_item, key in zip(values, keys, strict=True) for v in of_item or []]
    return figure([v for v, _ in pairs], clusters=[k for _, k in pairs], higher_is_better=better, resamples=resamples)


def markdown(content: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    head = (f"Controls of {content['run']}: {content['items']} test items with the same noise, seed {content['seed']}, "
            f"EMA weights; binding by chance {content['chance']:.3f}. "
            "Intervals are 95 %, differences paired to `right`.")  # fmt: skip
    rows = []
    for name, control in content["controls"].items():
        label = f"**{name}**: {control['what']}"
        for f, entry in control["figures"].items():
            low, high = entry["ci95"]
            gap = control["difference"].get(f)
            change = f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]" if gap else ""
            value = f"{entry['value']:.3f} [{low:.3f}, {high:.3f}]"
            rows.append([label, f"{f} ({METRICS[f].meaning})", value, str(entry["n"]), change])
            label = ""
    return f"{head}\n\n{table(['control', 'figure', 'value', 'n', 'difference to right'], rows, text=2)}\n"


def picture(
    examples: list[Example], changed: dict[str, list[Changed | None]], sampled: dict[str, ControlImages]
) -> np.ndarray:
    """A grid of images: rows are items, with the caption of `right`, and columns are controls.

    Args:
        examples: The test items.
        changed: The items under each control, by its name.
        sampled: The images under each control.

    Returns:
        (H,W,3) uint8.
    """
    cells = [[example.sketch, *(images[i] for images in sampled.values())] for i, example in enumerate(examples[:SHOWN])]
    captions = [_caption(i, changed) for i in range(len(cells))]
    return grid(cells, ["sketch", *(name.replace("_", " ") for name in sampled)], captions)


def _caption(index: int, changed: dict[str, list[Changed | None]]) -> str:
    plain = changed["right"][index].judged
    parts = [f"{plain.caption}."]
    for name in ("colours_swapped", "one_word"):
        changed_item = changed[name][index]
        if changed_item is not None:
            to = [f"{plain.objects[i].shape} {changed_item.judged.objects[i].colour}" for i in changed_item.touched]
            parts.append(f"{name.replace('_', ' ')}: {', '.join(to)}.")
    return " ".join(parts)
