"""Samples test items without and with region edits, and measures what the edits change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from eval import scoring
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.build import build
from ragaf_exp.core.edits import RegionEdit, RegionEdits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_json
from ragaf_exp.core.randomness import derive
from ragaf_exp.core.types import Example, Item, SceneObject
from ragaf_exp.data.assign import with_prompts
from ragaf_exp.data.loader import region_objects
from ragaf_exp.data.sources.captions import article
from ragaf_exp.evaluation.controls.interventions import CONTROLS, Changed
from ragaf_exp.evaluation.editing.rim import rim_roughness
from ragaf_exp.evaluation.editing.study import Study, markdown
from ragaf_exp.evaluation.readers import readers
from ragaf_exp.inference.load import load_run
from ragaf_exp.regions.redo import redo_area
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import check_followed, follow
from ragaf_exp.viz.grids import grid
from ragaf_exp.viz.panels import save_png

SCHEMA = 1
SHOWN = 6  # items in the picture


def measure_run(run: Path, out: Path, items: int, only: Sequence[str], followed: dict[str, str] | None = None) -> str:
    """Measure the edits of a run's regions and write the figures.

    Args:
        run: The run's folder.
        out: The JSON file to write.
        items: Number of test items.
        only: Names of MEASURES.
        followed: Config keys of files or networks that the command line repeats, and their values.

    Returns:
        The figures as a Markdown table.

    Raises:
        UserError: The run has no stage with regions, or its data names no colours of objects.
    """
    folder, cfg = RunFolder.read(run)
    cfg = follow(folder, cfg, followed or {})
    check_followed(folder, cfg, ("data",))
    parts, pipeline = load_run(folder, cfg)
    if not pipeline.has_regions:
        raise UserError(f"{run}: has no stage with regions; train one with stage=both")
    examples = _examples(parts, {"test": items}, items)
    if len(examples) < 2 or not all(scoring.can_bind(e.item) for e in examples):
        raise UserError(f"{run}: its captions colour no known objects; train on data=scenes or recoloured openmoji")
    study = Study(parts, pipeline, examples, readers(cfg, parts)[0])
    for name in only:
        MEASURE[name](study)
    content = {"schema": SCHEMA, "run": f"{folder.path.parent.name}/{folder.path.name}", "items": len(examples),
               "seed": cfg.seed, "steps": cfg.sampler.steps, "weights": "ema", "figures": study.figures}  # fmt: skip
    write_json(out, content)
    if (image := picture(study)) is not None:
        save_png(out.with_suffix(".png"), image)
    return markdown(study.figures)


def _examples(parts: Parts, changes: dict[str, Any], count: int) -> list[Example]:
    """The first test examples of the run's data with other settings, as far as the data source has these."""
    data: DictConfig = parts.cfg.data.copy()
    for key, value in changes.items():
        if key in data:
            OmegaConf.update(data, key, value)
    items = build(data, "data").split("test")
    return [parts.prepare(items[i]) for i in range(min(count, len(items)))]


def _prompt_changes(study: Study) -> list[tuple[int, Changed]]:
    """The places and changes of those items of which one object is prompted with another colour."""
    change, seed = CONTROLS["region_prompt"].change, study.parts.cfg.seed
    changed = [change(e, e, np.random.default_rng(derive(seed, "controls", "region_prompt", e.item.key)))
               for e in study.examples]  # fmt: skip
    return [(i, c) for i, c in enumerate(changed) if c is not None]


def measure_prompt(study: Study) -> None:
    """One region prompted with another colour, against the caption; the colour also as a bare word."""
    changes = _prompt_changes(study)
    plain = study.sample([study.examples[i] for i, _ in changes], "plain")
    prompted = study.sample([c.example for _, c in changes], "prompted")
    samples = zip(plain, prompted, changes, strict=True)
    pairs = [(_colours(a, c.judged), _colours(b, c.judged), c) for a, b, (_, c) in samples]
    followed = [[float(now[c.touched[0]] == c.judged.objects[c.touched[0]].colour)] for _, now, c in pairs]
    others = [[float(a != b) for k, (a, b) in enumerate(zip(was, now, strict=True)) if k not in c.touched]
              for was, now, c in pairs]  # fmt: skip
    study.add("prompt_followed", "regions with the colour of their prompt, which contradicts the caption", followed)
    study.add("prompt_others_changed", "other objects whose colour changed", others, higher_is_better=False)
    bare = study.sample([_bare(c) for _, c in changes], "prompted by a word")
    colours = [_colours(image, c.judged)[c.touched[0]] for image, (_, c) in zip(bare, changes, strict=True)]
    study.add("prompt_word_followed", "the same where the prompt is the colour's word without an article",
              [[float(colour == c.judged.objects[c.touched[0]].colour)]
               for colour, (_, c) in zip(colours, changes, strict=True)])  # fmt: skip


def _bare(changed: Changed) -> Example:
    place = changed.touched[0]
    return with_prompts(changed.example, [place], lambda i, thing: changed.judged.objects[place].colour)


def measure_repeated(study: Study) -> None:
    """Scenes in which a shape comes twice, so that words alone need relations."""
    examples = _examples(study.parts, {"test": 4 * len(study.examples), "repeat_share": 1.0}, 4 * len(study.examples))
    examples = _first_repeated(examples, len(study.examples))
    if not examples:
        return
    prompted = [with_prompts(e, range(len(e.item.objects))) for e in examples]
    judged = [e.item for e in examples]
    for name, some in (("caption", examples), ("prompts", prompted)):
        images = study.sample(some, f"repeated shapes by {name}")
        values = [[float(c == o.colour) for c, o in zip(_colours(image, item), item.objects, strict=True) if o.repeated]
                  for image, item in zip(images, judged, strict=True)]  # fmt: skip
        study.add(f"repeated_by_{name}", f"binding of objects whose shape the scene holds twice, by {name}", values)


def _first_repeated(examples: list[Example], count: int) -> list[Example]:
    """As many examples as hold `count` objects with a repeated shape, or all that hold one."""
    chosen: list[Example] = []
    for example in examples:
        if sum(o.repeated for e in chosen for o in e.item.objects) >= count:
            break
        if any(o.repeated for o in example.item.objects):
            chosen.append(example)
    return chosen


def measure_prompted(study: Study) -> None:
    """Every object's regions have its phrase, of the caption or without its context."""
    variants: dict[str, Callable[[int, SceneObject], str]] = {
        "phrase": lambda i, o: "", "colour": lambda i, o: article(o.colour)
    }  # fmt: skip
    for name, prompt in variants.items():
        examples = [with_prompts(e, range(len(e.item.objects)), prompt) for e in study.examples]
        images = study.sample(examples, f"every region prompted by its {name}")
        study.add(f"binding_prompted_{name}", f"binding where every region has its {name} as prompt",
                  [_bound(image, e.item) for image, e in zip(images, examples, strict=True)])  # fmt: skip


def measure_importance(study: Study) -> None:
    """Importance of what all objects' regions read: 0 must be chance, 2 must keep the sketch."""
    scores = {}
    for scale in (1.0, 0.0, 2.0):
        examples = [_with_importance(e, scale) for e in study.examples]
        images = study.sample(examples, f"importance {scale:g}")
        study.add(f"importance_{scale:g}_binding", f"binding at importance {scale:g} of every object",
                  [_bound(image, e.item) for image, e in zip(images, examples, strict=True)])  # fmt: skip
        values = scoring.sketch_values([e.sketch for e in examples], images, study.reader)
        scores[scale] = [[value] for value in values["sketch_f1"]]
        study.add(f"importance_{scale:g}_sketch_f1", f"sketch F1 at importance {scale:g}", scores[scale])
    study.add_difference("importance_2_sketch_f1_change", "sketch F1 at importance 2 minus 1", scores[1.0], scores[2.0])


def _with_importance(example: Example, scale: float) -> Example:
    edits = tuple(RegionEdit(importance=scale if owner >= 0 else 1.0) for owner in region_objects(example))
    return replace(example, edits=RegionEdits(edits))


def measure_keep(study: Study) -> None:
    """One region of a finished image is sampled again with another colour, compared with a whole new image."""
    changes = _prompt_changes(study)
    plain = study.sample([study.examples[i] for i, _ in changes], "plain")
    whole = study.sample([c.example for _, c in changes], "prompted")
    again = [_redone(c, image) for (_, c), image in zip(changes, plain, strict=True)]
    redone = study.sample(again, "redone")
    colours = [_colours(image, c.judged)[c.touched[0]] for image, (_, c) in zip(redone, changes, strict=True)]
    wanted = [c.judged.objects[c.touched[0]].colour for _, c in changes]
    study.add("keep_followed", "regions sampled again that have the colour of their prompt",
              [[float(a == b)] for a, b in zip(colours, wanted, strict=True)])  # fmt: skip
    areas = [redo_area(e.regions.labels, e.edits.redo, (), e.edits.grow) for e in again if e.edits is not None]
    equal = [[float(np.array_equal(a[~area], b[~area]))] for a, b, area in zip(plain, redone, areas, strict=True)]
    study.add("keep_pixels_equal", "images whose pixels outside the area are equal to the byte", equal)
    rims = {name: [[rim_roughness(image, np.isin(e.regions.labels, list(e.edits.redo)))]
                   for image, e in zip(images, again, strict=True) if e.edits is not None]
            for name, images in (("whole", whole), ("redone", redone))}  # fmt: skip
    study.add("rim_whole", "mean Laplacian around the region's border, whole image sampled", rims["whole"], False)
    study.add("rim_redone", "the same where the rest was kept", rims["redone"], higher_is_better=False)
    study.add_difference("rim_change", "the second minus the first", rims["whole"], rims["redone"])


def _redone(changed: Changed, image: np.ndarray) -> Example:
    """The example with its prompted regions sampled again in an image."""
    edits = changed.example.edits
    assert edits is not None, "a region prompt is an edit"
    redo = frozenset(i for i, edit in enumerate(edits.regions) if edit.prompt)
    return replace(changed.example, edits=replace(edits, keep=image, redo=redo))


def _colours(image: np.ndarray, item: Item) -> list[str]:
    return [b.detected_colour for b in scoring.bindings(image, item) or []]


def _bound(image: np.ndarray, item: Item) -> list[float]:
    return [float(b.correct) for b in scoring.bindings(image, item) or []]


def picture(study: Study) -> np.ndarray | None:
    """The first items, one per row: sketch, then as sampled without and with each edit; None where nothing was sampled."""
    changes = _prompt_changes(study)[:SHOWN]
    of_changes = [name for name in ("plain", "prompted", "redone") if name in study.sampled]
    of_examples = [name for name in ("importance 0", "importance 2") if name in study.sampled]
    if not changes or not of_changes + of_examples:
        return None
    cells = [[study.examples[i].sketch, *(study.sampled[name][row] for name in of_changes),
              *(study.sampled[name][i] for name in of_examples)] for row, (i, _) in enumerate(changes)]  # fmt: skip
    texts = [f"{c.judged.caption}. Prompt of the {c.judged.objects[c.touched[0]].shape}: "
             f"{article(c.judged.objects[c.touched[0]].colour)}." for _, c in changes]  # fmt: skip
    return grid(cells, ["sketch", *of_changes, *of_examples], texts)


MEASURE: dict[str, Callable[[Study], None]] = {
    "prompt": measure_prompt, "repeated": measure_repeated, "prompted": measure_prompted,
    "importance": measure_importance, "keep": measure_keep,
}  # fmt: skip
