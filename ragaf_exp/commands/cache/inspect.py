"""The commands show and prune of python -m ragaf_exp.commands.cache."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ragaf_exp.config.command_line import parse_args
from ragaf_exp.config.schema import Cache
from ragaf_exp.core.errors import UserError
from ragaf_exp.store import eviction
from ragaf_exp.store.entries import GIGABYTE, SHARDS, locate_cache
from ragaf_exp.store.shards import Entry, entries, evict, remove, sweep

BOUND = Cache().gigabytes


def show(arguments: list[str]) -> None:
    """Print entries, size and age, in total and by the config that made them."""
    folder = _folder(parse_args(arguments, {"folder": str}))
    groups: dict[str, list[Entry]] = defaultdict(list)
    for shard in _shards(folder):
        for entry in entries(shard):
            groups[entry.fingerprint].append(entry)
    every = [entry for group in groups.values() for entry in group]
    print(f"{folder}: {_many(every)}; the limit is cache.gigabytes, {BOUND:g} by default")
    if every:
        print(f"oldest {_when(min(e.used for e in every))}, newest {_when(max(e.used for e in every))} (last use)")
    for name, group in sorted(groups.items(), key=lambda g: -max(e.used for e in g[1])):
        print(f"  {_many(group)}, used {_when(max(e.used for e in group))}: {_config(folder / f'{name}.json')}")
    if sets := eviction.cached_sets(folder / eviction.FOLDER):
        print(f"evaluation features of {len(sets):,} image sets, {_size(sum(one.space for one in sets))}")


def prune(arguments: list[str]) -> None:
    """Remove the least recently used entries of every shard beyond its share of the limit, and files of killed runs.

    The features of the evaluation have a separate limit of the same size.
    """
    args = parse_args(arguments, {"folder": str, "gigabytes": str})
    folder, bound = _folder(args), _bound(args.get("gigabytes", str(BOUND)))
    share = int(bound * GIGABYTE / len(SHARDS))
    removed = freed = left = 0
    for shard in _shards(folder):
        sweep(shard)
        counts = evict(shard, share, share)
        removed, freed, left = removed + counts[0], freed + counts[1], left + counts[2]
    sweep(folder)
    sets, feature_bytes, feature_rest = eviction.evict(folder / eviction.FOLDER, bound * GIGABYTE)
    if bound == 0:
        for path in folder.glob("[0-9a-f]" * 16 + ".json"):
            remove(str(path))
    print(f"{folder}: {removed:,} entries of {_size(freed)} removed, {_size(left)} left")
    if sets or feature_rest:
        print(f"features of {sets:,} image sets, {_size(feature_bytes)}, removed, {_size(feature_rest)} left")


def _folder(args: dict[str, Any]) -> Path:
    folder = locate_cache(args.get("folder", ""))
    if args.get("folder") and not folder.is_dir():
        raise UserError(f"folder={args['folder']}: no such folder; leave it out to use {locate_cache('')}")
    return folder


def _bound(text: str) -> float:
    try:
        bound = 0.0 if text == "all" else float(text)
    except ValueError:
        bound = math.nan
    if not (text == "all" or 0 < bound < math.inf):
        raise UserError(f"gigabytes={text}: must be a number above 0, or all to remove everything")
    return bound


def _shards(folder: Path) -> Iterator[Path]:
    for name in tqdm(SHARDS, unit="shard", leave=False, disable=None):  # takes seconds with a million entries
        yield folder / name


def _config(path: Path) -> str:
    """The classes that made a group's entries; the file has the full config."""
    try:
        config = json.loads(path.read_text())
        parts = [config[group]["_target_"].rpartition(".")[2] for group in ("sketch", "regions", "graph")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"unknown config ({path.name} is missing or damaged)"
    return f"{', '.join(parts)} ({path.name})"


def _many(group: list[Entry]) -> str:
    return f"{len(group):,} entries, {_size(sum(entry.space for entry in group))}"


def _size(count: int) -> str:
    return f"{count / GIGABYTE:,.2f} GB" if count >= GIGABYTE else f"{count / 1e6:,.2f} MB"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
