"""Metrics that need a network: distances of whole sets, LPIPS, CLIP. Unavailable ones are reported, never replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eval.clip.crops import PhraseRegions
from eval.features import load
from eval.features.cached import features_of
from eval.features.distances import distance_figures
from eval.features.inception import MODES
from eval.features.indiscernible import PREFIXES, indiscernible_figures
from eval.images import ImageSet
from eval.registry import METRICS
from eval.unavailable import Unavailable
from ragaf_exp.config.schema import Cache, Eval
from ragaf_exp.core.errors import UserError
from ragaf_exp.store.entries import GIGABYTE, locate_cache
from ragaf_exp.store.eviction import FOLDER, evict

DISTANCES = {  # of sets, by network
    "embedded": ["fd_embedded", "u_ids_embedded", "p_ids_embedded"], "squeezenet": ["fd_squeezenet"],
    "inception": ["fid", "kid", "u_ids", "p_ids"],
}  # fmt: skip


@dataclass
class NetworkScores:
    """Figures of whole sets, items' values and facts by metric, and the reasons why metrics are unavailable."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, list] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    def add_or_explain(self, names: Sequence[str], measure: Callable[[], None]) -> None:
        """Call `measure`; if it raises Unavailable, record the reason for each of these metrics."""
        try:
            measure()
        except Unavailable as reason:
            self.unavailable |= dict.fromkeys(names, str(reason))


class Networks:
    """The networks of the metrics in `settings.metrics`. Each is loaded once, on first use.

    Args:
        settings: The `eval` config.
        device: auto, cpu or cuda.
        cache_folder: Folder of the feature cache, "" for the default; None disables it.
        gigabytes: Size limit of the feature cache.
    """

    def __init__(
        self, settings: Eval, device: str = "auto", cache_folder: str | None = "", gigabytes: float = Cache().gigabytes
    ):
        self.settings, self.device = settings, device
        self.folder = None if cache_folder is None else locate_cache(cache_folder) / FOLDER
        self.bound = gigabytes * GIGABYTE
        self._loaded: dict[str, Any] = {}

    def check(self) -> None:
        """Load everything that the settings name by file, so that a wrong name fails before any work is done.

        Downloads are left to the metric that needs them. Raises UserError for a wrong name or file.
        """
        s, wanted, scores = self.settings, set(self.settings.metrics), NetworkScores()
        if set(DISTANCES["inception"]) & wanted and s.resize not in MODES:
            raise UserError(f"eval.resize={s.resize}: must be one of {', '.join(MODES)}")
        files = {"inception": s.inception, "squeezenet": s.squeezenet}
        for name in (n for n, file in files.items() if file and wanted & set(DISTANCES[n])):
            scores.add_or_explain(DISTANCES[name], lambda n=name: self._network(n))
        if "lpips" in wanted and (s.lpips_backbone or s.lpips_heads):
            scores.add_or_explain(["lpips"], lambda: self._once("lpips", self._load_lpips))
        if {"clip", "region_clip"} & wanted:
            scores.add_or_explain(["clip"], self._check_clip)

    def _check_clip(self) -> None:
        from eval.clip.weights import local

        if local(self.settings.clip_model, self.settings.clip_pretrained, self.settings.clip_config) is not None:
            self._once("clip", self._load_clip)

    def measure(
        self, images: ImageSet, reference: ImageSet | None, captions: Sequence[str] | None = None,
        regions: Sequence[PhraseRegions] | None = None,
    ) -> NetworkScores:  # fmt: skip
        """Compute the requested distances and CLIP scores that the given data allow.

        Args:
            images: The set to be scored.
            reference: For distances between sets; None leaves them out.
            captions: One for each image, for CLIP scores; None leaves them out.
            regions: The regions of each image, for region CLIP; None leaves it out.
        """
        scores, wanted = NetworkScores(), self.settings.metrics
        for network, of_it in DISTANCES.items() if reference is not None else ():
            names = [name for name in of_it if name in wanted]
            if names:
                scores.add_or_explain(names, lambda n=names, w=network: self._distances(scores, n, w, images, reference))
        if "clip" in wanted and captions is not None:
            scores.add_or_explain(["clip_score"], lambda: self._clip(scores, images, captions))
        if "region_clip" in wanted and regions is not None:
            scores.add_or_explain(["region_clip_accuracy"], lambda: self._region_clip(scores, images, regions))
        self._evict()
        return scores

    def lpips(
        self, images: ImageSet, reference: ImageSet, holes: Sequence[np.ndarray] | None = None
    ) -> NetworkScores:  # fmt: skip
        """LPIPS of each image to its reference, of the whole and within the hole; empty unless requested.

        Args:
            images: The images.
            reference: As many, of the same sizes.
            holes: (H,W) bool of each image, True = hole; None leaves that figure out.
        """
        scores = NetworkScores()
        if "lpips" in self.settings.metrics:
            names = ["lpips"] if holes is None else ["lpips", "lpips_hole"]
            scores.add_or_explain(names, lambda: self._lpips(scores, images, reference, holes))
        return scores

    def edits(self, before: ImageSet, after: ImageSet, captions: Sequence[tuple[str, str]]) -> NetworkScores:
        """Directional CLIP scores of edited images; empty unless `clip` is requested.

        Args:
            before: Images before the edit.
            after: Images after it.
            captions: Captions before and after it, a pair for each image.
        """
        scores = NetworkScores()
        if "clip" in self.settings.metrics:
            scores.add_or_explain(["clip_directional"], lambda: self._edits(scores, before, after, captions))
            self._evict()
        return scores

    def _evict(self) -> None:
        if self.folder is not None:
            with suppress(OSError):  # a folder that can't be used: a warning was logged
                evict(self.folder, self.bound)

    def _distances(
        self, scores: NetworkScores, names: list[str], network: str, images: ImageSet, reference: ImageSet
    ) -> None:
        fewest, needed = min(len(images), len(reference)), max(METRICS[name].min_n for name in names)
        if fewest < needed:
            raise Unavailable(f"{names[0]}: {fewest} images; a distance between sets needs at least {needed} in either")
        ids = [name for name in names if name.startswith(PREFIXES)]
        entries: dict[str, dict[str, Any]] = {}
        if len(ids) < len(names):
            entries |= distance_figures(images, reference, self._network(network), self.folder)
        if ids:
            entries |= indiscernible_figures(images, reference, self._network(network), self.folder)
        scores.metrics |= {name: entries[name] for name in names if name in entries}
        scores.unavailable |= {name: f"{name}: compares pairs, and the sets have different names" for name in ids
                               if name not in entries}  # fmt: skip

    def _lpips(
        self, scores: NetworkScores, images: ImageSet, reference: ImageSet, holes: Sequence[np.ndarray] | None
    ) -> None:
        lpips = self._once("lpips", self._load_lpips)
        scores.values["lpips"] = lpips.scores(iter(images), iter(reference), len(images))
        if holes is not None:
            scores.values["lpips_hole"] = lpips.in_holes(iter(images), iter(reference), holes)
        scores.facts |= dict.fromkeys(scores.values, lpips.facts())

    def _clip(self, scores: NetworkScores, images: ImageSet, captions: Sequence[str]) -> None:
        from eval.clip.scores import caption_scores

        clip = self._once("clip", self._load_clip)
        features = features_of(images, clip, self.folder)
        scored = caption_scores(clip, images, captions, features=features)
        scores.values |= scored.values
        scores.facts |= scored.facts

    def _edits(self, scores: NetworkScores, before: ImageSet, after: ImageSet, captions: Sequence[tuple[str, str]]) -> None:
        from eval.clip.scores import edit_scores

        clip = self._once("clip", self._load_clip)
        features = tuple(features_of(images, clip, self.folder) for images in (before, after))
        scored = edit_scores(clip, before, after, *zip(*captions, strict=True), features=features)
        scores.values |= scored.values
        scores.facts |= scored.facts

    def _region_clip(self, scores: NetworkScores, images: ImageSet, regions: Sequence[PhraseRegions]) -> None:
        from eval.clip.scores import region_scores

        scored = region_scores(self._once("clip", self._load_clip), images, regions, cache_folder=self.folder)
        scores.values |= scored.values
        scores.facts |= scored.facts

    def _network(self, name: str) -> Any:
        s = self.settings
        return self._once(name, lambda: load(name, inception=s.inception, squeezenet=s.squeezenet, resize=s.resize,
                                             device=self.device))  # fmt: skip

    def _load_lpips(self) -> Any:
        from eval.lpips import Lpips

        s = self.settings
        return Lpips(s.lpips_net, s.lpips_backbone, s.lpips_heads, self.device, s.lpips_batch)

    def _load_clip(self) -> Any:
        from eval.clip.network import Clip

        s = self.settings
        return Clip(s.clip_model, s.clip_pretrained, s.clip_config, s.clip_precision, self.device, s.clip_batch)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._loaded:
            self._loaded[name] = make()
        return self._loaded[name]
