"""Scores images of any origin against a folder of references, captions, sketches or masks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from eval import scoring
from eval.checks import SHOWN, guard, matched, sizes_apart
from eval.edges import reader_of
from eval.edits import colour_errors
from eval.hole_folders import hole_values, holes_of
from eval.images import ImageSet, ahead
from eval.items import ItemRow, write_items
from eval.metrics.image import check_window
from eval.networks import Networks, NetworkScores
from eval.registry import image_scores
from eval.results import SCHEMA, Result, groups_of, phrase_regions
from eval.scan import Survey, survey
from eval.sidecars import Caption, files_by_key, read_captions, scenes_of, sketches_of
from ragaf_exp.config.schema import Eval
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_json
from ragaf_exp.data.decode import read_labels
from ragaf_exp.data.images import read_drawing
from ragaf_exp.data.listing import in_short
from ragaf_exp.data.masks.read import read_mask


@dataclass(frozen=True)
class Sources:
    """Paths given on the command line. Files belong together by their relative name without suffix."""

    images: Path
    reference: Path | None = None
    captions: Path | None = None
    sketches: Path | None = None
    masks: Path | None = None
    hole: str = ""  # which pixels of the masks are a hole; "" for masks with the values of phrases
    colours: bool = False  # whether the images are colour corrections, scored against the reference
    training: Path | None = None  # the images that the model was trained on
    skip_damaged: bool = False

    def check(self) -> None:
        """Raise UserError where a source needs another one."""
        if self.masks and not (self.captions or self.hole):
            raise UserError("masks=: needs captions=FILE.jsonl with phrases, which say what each mask should show, or "
                            "hole=auto (or white, black, transparent, opaque), where they are holes")  # fmt: skip
        if self.hole and not (self.masks and self.reference):
            raise UserError(f"hole={self.hole}: needs masks=DIR, whose pixels are the holes, and reference=DIR")
        if self.colours and not self.reference:
            raise UserError("colours=true: needs reference=DIR, the images with the right colours")


@dataclass(frozen=True)
class Given:
    """Contents of the sources by image key; None for a source that is not given."""

    captions: dict[str, Caption] | None = None
    sketches: dict[str, Path] | None = None
    masks: dict[str, Path] | None = None
    hole: str = ""
    colours: bool = False


class FolderScores:
    """Scores a checked set of images; each source applies to the images that it has an entry for.

    The constructor checks all input that can be checked without a network, before any features are computed.

    Args:
        images: The set to be scored.
        reference: The reference images, or None.
        given: Captions, sketches and masks.
        settings: The `eval` config.
        networks: Feature networks.

    Raises:
        UserError: For input that does not fit together.
    """

    def __init__(
        self, images: ImageSet, reference: ImageSet | None, given: Given, settings: Eval, networks: Networks
    ):  # fmt: skip
        self.images, self.reference, self.settings, self.networks = images, reference, settings, networks
        self.counts: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.facts = {"set": images.name, "resamples": settings.bootstrap}
        self.result = Result([ItemRow(key) for key in images.keys])
        self.given, captions = given, given.captions or {}
        self.captioned = None if given.captions is None else self._part("captions", captions)
        self.edited = self._edited({key: caption for key, caption in captions.items() if caption.before})
        self.sketched = None if given.sketches is None else self._part("sketches", given.sketches)
        self.masked = None if given.masks is None or given.hole else self._masked(given.masks, captions)
        self.pairs = self._pairs()
        if given.colours and self.pairs is None:
            raise UserError("colours=true: needs reference=DIR with images of the same names and sizes")
        self.holed = self._holed(given.masks) if given.masks is not None and given.hole else None

    def _edited(self, edited: dict[str, Caption]) -> tuple[ImageSet, ImageSet] | None:
        """Edited images, those whose caption has text_before, and the reference's pictures before the edit."""
        if not edited:
            return None
        if self.reference is None:
            raise UserError("captions=: has text_before, which belongs to the images before the edit; give reference=DIR")
        sources = set(self.reference.keys)
        known = self._part("edits", {key: caption for key, caption in edited.items() if key in sources})
        return matched(known, self.reference, alike=False)[:2]  # CLIP resizes each separately

    def _masked(self, files: dict[str, Path], captions: dict[str, Caption]) -> ImageSet:
        both = {key: path for key, path in files.items() if key in captions and captions[key].phrases}
        known = self._part("masks", both)
        deque(scenes_of(known, both, captions), maxlen=0)  # reads and checks each, keeps none
        return known

    def _holed(self, files: dict[str, Path]) -> tuple[ImageSet, ImageSet, Sequence[np.ndarray]]:
        """Pairs that have a mask, and their holes, each of which is read and checked."""
        if self.pairs is None:
            raise UserError(f"hole={self.given.hole}: needs reference=DIR with images of the same names and sizes")
        first, second, _ = matched(self._part("masks", files), self.pairs[1])
        holes = holes_of(first, files, self.given.hole)
        deque(holes, maxlen=0)
        self.counts["masks"]["read_as"] = read_mask(files[first.keys[0]], self.given.hole, report=False).assumed
        return first, second, holes

    def _pairs(self) -> tuple[ImageSet, ImageSet] | None:
        """Images and references of the same name. If sizes differ, metrics of pairs are recorded as unavailable."""
        if self.reference is None or not set(self.images.keys) & set(self.reference.keys):
            return None
        first, second, counts = matched(self.images, self.reference, alike=False)
        if reason := sizes_apart(first, second):
            names = [name for name in (*image_scores(), "lpips") if name != "lpips" or name in self.settings.metrics]
            self.result.unavailable |= dict.fromkeys(names, reason)
            return None
        check_window(first[0])
        self.counts["pairs"] = counts
        return first, second

    def score(self) -> None:
        """Compute every figure that the sources allow."""
        if self.reference is not None:
            self._take(self.networks.measure(self.images, self.reference), self.images.keys)
        if self.pairs is not None:
            first, second = self.pairs
            self._add(scoring.pixel_values(first, second), {}, first.keys)
            self._take(self.networks.lpips(first, second), first.keys)
            if self.given.colours:
                self._add(colour_errors(first, second), {}, first.keys)
        if self.captioned is not None:
            self._against_captions(self.captioned)
        if self.sketched is not None:
            self._against_sketches(self.sketched)
        if self.masked is not None:
            self._against_masks(self.masked)
        if self.holed is not None:
            self._against_holes(*self.holed)

    def _against_captions(self, known: ImageSet) -> None:
        captions = self.given.captions
        texts = [captions[key].text for key in known.keys]
        self._take(self.networks.measure(known, None, texts), known.keys)
        if self.edited is not None:
            after, before = self.edited
            changed = [(captions[key].before, captions[key].text) for key in after.keys]
            self._take(self.networks.edits(before, after, changed), after.keys)

    def _against_sketches(self, known: ImageSet) -> None:
        reader = reader_of(None, self.settings.edges, self.settings.pidinet, self.networks.device)
        with tqdm(total=len(known), desc="sketch fidelity", unit="image") as bar:
            values = scoring.sketch_values(sketches_of(known, self.given.sketches), known, reader, done=bar.update)
        self._add(values, dict.fromkeys(values, {"edges": reader.name}), known.keys)

    def _against_masks(self, known: ImageSet) -> None:
        scenes = scenes_of(known, self.given.masks, self.given.captions)
        judged, empty = [], []
        for image, scene in zip(known, scenes, strict=True):
            judged.append(scoring.bindings(image, scene))
            if not scene.objects:
                empty.append(scene.key)
        self._note_empty(empty, len(known))
        self._add(scoring.binding_values(judged), {}, known.keys)
        self._take(self.networks.measure(known, None, regions=phrase_regions(scenes)), known.keys)

    def _against_holes(self, images: ImageSet, reference: ImageSet, holes: Sequence[np.ndarray]) -> None:
        self._add(hole_values(images, reference, holes), {}, images.keys)
        scores = self.networks.lpips(images, reference, holes)
        self._take(replace(scores, values={k: v for k, v in scores.values.items() if k != "lpips"}), images.keys)

    def _note_empty(self, keys: list[str], count: int) -> None:
        """Count the masks without any phrase's value and warn about them: their images have no binding."""
        self.counts["masks"]["without_phrases"] = len(keys)
        if keys:
            self.warnings.append(f"masks: {len(keys)} of {count} hold no phrase's value, such as {', '.join(keys[:SHOWN])}"
                                 "; these images have no binding: k marks where the k-th phrase should be")  # fmt: skip

    def _part(self, name: str, known: dict[str, Any]) -> ImageSet:
        """The images that a source has an entry for. Raises UserError if there are none."""
        part = self.images.subset(i for i, key in enumerate(self.images.keys) if key in known)
        if not len(part):
            raise UserError(f"{name}=: nothing there is named as an image of {self.images.name}, such as "
                            f"{self.images.keys[0]}, or has phrases where masks need them")  # fmt: skip
        self.counts[name] = {"used": len(part), "images_without": len(self.images) - len(part)}
        return part

    def _take(self, scores: NetworkScores, keys: Sequence[str]) -> None:
        self.result.take(replace(scores, values=self._spread(scores.values, keys)), self.facts)

    def _add(self, values: scoring.Values, facts: dict[str, dict[str, Any]], keys: Sequence[str]) -> None:
        self.result.add(self._spread(values, keys), facts, self.facts, "")

    def _spread(self, values: scoring.Values, keys: Sequence[str]) -> scoring.Values:
        """Extend values of the images `keys` to all images; None for the others."""
        index = {key: i for i, key in enumerate(keys)}
        return {name: [of[index[key]] if key in index else None for key in self.images.keys]
                for name, of in values.items()}  # fmt: skip


def _training(folder: Path | None, reference: ImageSet | None) -> Survey:
    """Check the training images, fitted to the reference's size if that is square, as training fits them."""
    if folder is None or reference is None:
        return Survey("training images")
    height, width = reference[0].shape[:2]
    return survey(ImageSet.folder(folder, size=width if height == width else None))


def _readable(
    name: str, files: dict[str, Path] | None, read: Callable[[Path], Any], skip: bool
) -> tuple[dict[str, Path] | None, dict[str, str]]:
    """The readable files of a source and the reasons why others are left out; without `skip`, all files."""
    if files is None or not skip:
        return files, {}
    paths = list(files.values())
    reasons = ahead(lambda i: _fault(read, paths[i]), tqdm(range(len(paths)), desc=f"checking {name}", unit="image"))
    damaged = {key: reason for key, reason in zip(files, reasons, strict=True) if reason}
    return {key: path for key, path in files.items() if key not in damaged}, damaged


def _fault(read: Callable[[Path], Any], path: Path) -> str:
    try:
        read(path)
    except UserError as error:
        return str(error)
    return ""


def _left_out(damaged: dict[str, dict[str, str]]) -> list[str]:
    """One warning for each source with damaged files or rows."""
    what = {name: "rows" if name == "captions" else "damaged files" for name in damaged}
    return [f"{name}: {len(reasons)} {what[name]} are left out: {in_short(list(reasons.values()), '; ')}"
            for name, reasons in damaged.items() if reasons]  # fmt: skip


def evaluate_folders(sources: Sources, settings: Eval, networks: Networks, out: Path) -> dict[str, Any]:
    """Score images and write the figures and the items' scores.

    Args:
        sources: Paths of the images and of what they are compared with.
        settings: The `eval` config.
        networks: Feature networks.
        out: JSON file in the form of metrics.json; the items' scores go to `.items.jsonl` next to it.

    Returns:
        The content of `out`.

    Raises:
        UserError: For invalid input.
    """
    sources.check()
    networks.check()
    bad_rows: list[str] = []
    captions = read_captions(sources.captions, bad_rows if sources.skip_damaged else None) if sources.captions else None
    sketches, masks = (files_by_key(folder, name) if folder else None
                       for name, folder in (("sketches", sources.sketches), ("masks", sources.masks)))  # fmt: skip
    damaged: dict[str, dict[str, str]] = {"captions": {reason: reason for reason in bad_rows}}
    sketches, damaged["sketches"] = _readable("sketches", sketches, read_drawing, sources.skip_damaged)
    read = partial(read_mask, hole=sources.hole, report=False) if sources.hole else read_labels
    masks, damaged["masks"] = _readable("masks", masks, read, sources.skip_damaged)
    reference = ImageSet.folder(sources.reference) if sources.reference else None
    images = ImageSet.folder(sources.images)
    training = _training(sources.training, reference)
    damaged["training"] = training.damaged
    left_out = {"damaged": {name: len(reasons) for name, reasons in damaged.items() if reasons}}
    guarded = guard(images, reference, [picture.hash for picture in training.pictures], sources.skip_damaged)
    given = Given(captions, sketches, masks, sources.hole, sources.colours)
    scores = FolderScores(guarded.images, guarded.reference, given, settings, networks)
    scores.score()
    result = scores.result
    content = {
        "schema": SCHEMA, "images": str(sources.images), "metrics": result.metrics, "unavailable": result.unavailable,
        "warnings": guarded.warnings + _left_out(damaged) + scores.warnings,
        "items": guarded.counts | scores.counts | left_out,
        "groups": groups_of(result, settings.bootstrap),
    }  # fmt: skip
    write_items(out.with_suffix(".items.jsonl"), result.rows)
    write_json(out, content)
    return content
