"""Metrics that need a network: distances of whole sets, LPIPS, CLIP. What can't be had is told, never replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from eval.clip.crops import PhraseRegions
from eval.features import load
from eval.features.cached import features_of
from eval.features.distances import distance_figures
from eval.features.inception import MODES
from eval.images import ImageSet
from eval.registry import METRICS
from eval.unavailable import Unavailable
from ragaf_exp.config.schema import Cache, Eval
from ragaf_exp.core.errors import UserError
from ragaf_exp.store.entries import GIGABYTE, locate_cache
from ragaf_exp.store.eviction import FOLDER, evict

DISTANCES = {"embedded": ["fd_embedded"], "squeezenet": ["fd_squeezenet"], "inception": ["fid", "kid"]}  # of sets


@dataclass
class NetworkScores:
    """Figures of whole sets, values of items by metric with the facts beside them, and what could not be measured."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, list] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    def add_or_explain(self, names: Sequence[str], measure: Callable[[], None]) -> None:
        """Measure; where that is unavailable here, note why for each of these metrics."""
        try:
            measure()
        except Unavailable as reason:
            self.unavailable |= dict.fromkeys(names, str(reason))


class Networks:
    """The networks that `settings.metrics` asks for. Each is loaded once.

    Features are kept in the cache's folder, up to `gigabytes` of them; with None for a folder nothing is kept.
    """

    def __init__(
        self, settings: Eval, device: str = "auto", cache_folder: str | None = "", gigabytes: float = Cache().gigabytes
    ):
        self.settings, self.device = settings, device
        self.folder = None if cache_folder is None else locate_cache(cache_folder) / FOLDER
        self.bound = gigabytes * GIGABYTE
        self._kept: dict[str, Any] = {}

    def check(self) -> None:
        """Load what files or names of the settings stand for: UserError where one is wrong, before any work is done.

        Libraries' own downloads are left to the metric that needs them.
        """
        s, wanted, found = self.settings, set(self.settings.metrics), NetworkScores()
        if {"fid", "kid"} & wanted and s.resize not in MODES:
            raise UserError(f"eval.resize={s.resize}: must be one of {', '.join(MODES)}")
        files = {"inception": s.inception, "squeezenet": s.squeezenet}
        for name in (n for n, file in files.items() if file and wanted & set(DISTANCES[n])):
            found.add_or_explain(DISTANCES[name], lambda n=name: self._network(n))
        if "lpips" in wanted and (s.lpips_backbone or s.lpips_heads):
            found.add_or_explain(["lpips"], lambda: self._once("lpips", self._load_lpips))
        if {"clip", "region_clip"} & wanted:
            found.add_or_explain(["clip"], self._check_clip)

    def _check_clip(self) -> None:
        from eval.clip.weights import local

        if local(self.settings.clip_model, self.settings.clip_pretrained, self.settings.clip_config) is not None:
            self._once("clip", self._load_clip)

    def measure(
        self, images: ImageSet, reference: ImageSet | None, captions: Sequence[str] | None = None,
        regions: Sequence[PhraseRegions] | None = None,
    ) -> NetworkScores:  # fmt: skip
        """Of a set, what is asked for and can be said by what is given: distances to a reference, CLIP."""
        found, wanted = NetworkScores(), self.settings.metrics
        for network, of_it in DISTANCES.items() if reference is not None else ():
            names = [name for name in of_it if name in wanted]
            if names:
                found.add_or_explain(names, lambda n=names, w=network: self._distances(found, n, w, images, reference))
        if "clip" in wanted and captions is not None:
            found.add_or_explain(["clip_score"], lambda: self._clip(found, images, captions))
        if "region_clip" in wanted and regions is not None:
            found.add_or_explain(["region_clip_accuracy"], lambda: self._region_clip(found, images, regions))
        self._evict()
        return found

    def lpips(self, images: ImageSet, reference: ImageSet) -> NetworkScores:
        """Of each image, the distance to the reference in its place; nothing where it is not asked for."""
        found = NetworkScores()
        if "lpips" in self.settings.metrics:
            found.add_or_explain(["lpips"], lambda: self._lpips(found, images, reference))
        return found

    def edits(self, before: ImageSet, after: ImageSet, captions: Sequence[tuple[str, str]]) -> NetworkScores:
        """Of edited images, whether they moved as their captions (before, after) did; nothing without `clip`."""
        found = NetworkScores()
        if "clip" in self.settings.metrics:
            found.add_or_explain(["clip_directional"], lambda: self._edits(found, before, after, captions))
            self._evict()
        return found

    def _evict(self) -> None:
        if self.folder is not None:
            with suppress(OSError):  # a folder that can't be used, which was warned of
                evict(self.folder, self.bound)

    def _distances(
        self, found: NetworkScores, names: list[str], network: str, images: ImageSet, reference: ImageSet
    ) -> None:
        fewest, needed = min(len(images), len(reference)), max(METRICS[name].min_n for name in names)
        if fewest < needed:
            raise Unavailable(f"{names[0]}: {fewest} images; a distance between sets needs at least {needed} in either")
        entries = distance_figures(images, reference, self._network(network), self.folder)
        found.metrics |= {name: entries[name] for name in names}

    def _lpips(self, found: NetworkScores, images: ImageSet, reference: ImageSet) -> None:
        lpips = self._once("lpips", self._load_lpips)
        found.values["lpips"] = lpips.scores(iter(images), iter(reference), len(images))
        found.facts["lpips"] = lpips.facts()

    def _clip(self, found: NetworkScores, images: ImageSet, captions: Sequence[str]) -> None:
        from eval.clip.scores import caption_scores

        clip = self._once("clip", self._load_clip)
        features = features_of(images, clip, self.folder)
        scored = caption_scores(clip, images, captions, features=features)
        found.values |= scored.values
        found.facts |= scored.facts

    def _edits(self, found: NetworkScores, before: ImageSet, after: ImageSet, captions: Sequence[tuple[str, str]]) -> None:
        from eval.clip.scores import edit_scores

        clip = self._once("clip", self._load_clip)
        features = tuple(features_of(images, clip, self.folder) for images in (before, after))
        scored = edit_scores(clip, before, after, *zip(*captions, strict=True), features=features)
        found.values |= scored.values
        found.facts |= scored.facts

    def _region_clip(self, found: NetworkScores, images: ImageSet, regions: Sequence[PhraseRegions]) -> None:
        from eval.clip.scores import region_scores

        scored = region_scores(self._once("clip", self._load_clip), images, regions, cache_folder=self.folder)
        found.values |= scored.values
        found.facts |= scored.facts

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
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]
