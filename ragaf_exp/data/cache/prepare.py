"""A preparer that reads from the cache where it can, instead of computing."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig

from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.cache.entry import Unreadable, pack, unpack
from ragaf_exp.data.cache.fingerprint import content_hash, describe, fingerprint
from ragaf_exp.data.loader import Preparer
from ragaf_exp.store.entries import GIGABYTE, Store, locate_cache

log = logging.getLogger(__name__)


class CachedPreparer(Preparer):
    """Item -> Example, bit-identical to that of `prepare`, computed once for each picture.

    The attributes `sketch`, `regions` and `graph` are those of `prepare`, and do not use the cache.

    Args:
        prepare: Computes examples that are not in the cache.
        store: The cache.
        description: Everything that the result depends on besides the picture (fingerprint.describe).
    """

    def __init__(self, prepare: Preparer, store: Store, description: dict[str, Any]):
        super().__init__(prepare.sketch, prepare.regions, prepare.graph)
        self.prepare, self.store = prepare, store
        self.description, self.fingerprint = description, fingerprint(description)
        self.computed = 0  # examples that were not in the cache

    def __call__(self, item: Item) -> Example:
        name = f"{self.fingerprint}-{content_hash(item)}"
        example = self._read(name, item)
        return self._compute(name, item) if example is None else example

    def _read(self, name: str, item: Item) -> Example | None:
        content = self.store.read(name)
        if content is None:
            return None
        try:
            return unpack(name, content, item)
        except Unreadable:
            log.debug("cache: %s is damaged and made again", self.store.path(name))
            self.store.remove(name)
            return None

    def _compute(self, name: str, item: Item) -> Example:
        example = self.prepare(item)
        if not self.computed:
            self.store.describe(self.fingerprint, self.description)
        self.computed += 1
        self.store.write(name, pack(name, example))
        return example


def cached(prepare: Preparer, cfg: DictConfig) -> Preparer:
    """Wrap `prepare` in the cache of the config, if enabled; nothing is read or written yet."""
    if not cfg.cache.enabled:
        return prepare
    store = Store(locate_cache(cfg.cache.folder), cfg.cache.gigabytes * GIGABYTE)
    return CachedPreparer(prepare, store, describe(cfg))
