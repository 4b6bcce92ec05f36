"""The command warm of python -m ragaf_exp.commands.cache: fills the cache before training."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import Any, NamedTuple

from omegaconf import DictConfig
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from tqdm import tqdm

from ragaf_exp.assembly.assemble import preparer
from ragaf_exp.config.build import build
from ragaf_exp.config.command_line import parse_args
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.cache.prepare import CachedPreparer, cached
from ragaf_exp.data.loader import ignore_signals, workers_watched
from ragaf_exp.store.entries import locate_cache

CHUNK = 8  # items per request to a worker; an interrupt waits until the current chunks are done


class Outcome(NamedTuple):
    """The result for one item. stored: whether the folder is writable. error: the item's error, in one line."""

    computed: bool
    stored: bool
    error: str = ""


class Warming(Dataset):
    """Prepares item i of all splits in order. Worker processes build the data and preparer themselves."""

    def __init__(self, cfg: DictConfig):
        self.cfg = cfg

    def __getstate__(self) -> dict[str, Any]:
        return {"cfg": self.cfg}

    @cached_property
    def items(self) -> ConcatDataset:
        source = build(self.cfg.data, "data")
        return ConcatDataset([source.split(split) for split in ("train", "val", "test")])

    @cached_property
    def prepare(self) -> CachedPreparer:
        return cached(preparer(self.cfg), self.cfg)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Outcome:
        before = self.prepare.computed
        try:
            self.prepare(self.items[index])
        except UserError as error:  # a loader's worker would turn it into a traceback
            return Outcome(False, True, str(error))
        return Outcome(self.prepare.computed > before, self.prepare.store.writable)


def warm(arguments: list[str]) -> None:
    """Prepare every item of a config's data once. Raises UserError on bad data.

    arguments: overrides, and workers=N for the number of processes (0 = this one).
    """
    own = [argument for argument in arguments if argument.startswith("workers=")]
    workers = parse_args(own, {"workers": int}).get("workers", 0)
    if workers < 0:
        raise UserError(f"workers={workers}: must be at least 0; use 0 for this process alone")
    cfg = compose_config([argument for argument in arguments if argument not in own])
    if not cfg.cache.enabled:
        raise UserError("cache.enabled=False: there is no cache to warm; use cache=default")
    folder = locate_cache(cfg.cache.folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        total, computed = _run(Warming(cfg), workers)
    except KeyboardInterrupt:
        print("interrupted; computed entries are stored, and the same command resumes from there", file=sys.stderr)
        sys.exit(130)
    print(f"{folder}: {total:,} items, {computed:,} of them computed now, {total - computed:,} cached before")


def _run(warming: Warming, workers: int) -> tuple[int, int]:
    """(number of items, number of them computed now)."""
    loader = DataLoader(warming, batch_size=CHUNK, collate_fn=list, num_workers=workers,
                        worker_init_fn=ignore_signals)  # fmt: skip
    computed = 0
    with workers_watched(), tqdm(total=len(warming), desc="warming the cache", unit="item", mininterval=1.0) as bar:
        for outcomes in loader:
            for outcome in outcomes:
                if outcome.error or not outcome.stored:
                    folder = locate_cache(warming.cfg.cache.folder)
                    raise UserError(outcome.error or f"{folder}: can't be written to; choose another cache.folder")
                computed += outcome.computed
            bar.update(len(outcomes))
    return len(warming), computed
