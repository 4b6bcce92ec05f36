"""The disk cache's files: a bounded folder that many processes write at once, and that may fail at any time."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.assembly.assemble import preparer
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.types import Item
from ragaf_exp.data.cache.prepare import CachedPreparer
from ragaf_exp.store import entries as storing
from ragaf_exp.store.entries import REFRESH, SHARDS, Store, locate_cache
from ragaf_exp.store.shards import STALE, entries

ROOM = 40_960  # bytes of a shard: ten blocks


def name(number: int, shard: int = 0) -> str:
    return f"{'0' * 16}-{shard:02x}{number:030x}"


def small(folder: Path) -> Store:
    return Store(folder, ROOM * len(SHARDS))


def content(key: str) -> bytes:
    """Content that every process writes under a name: up to three blocks."""
    return key.encode() * (1 + int(key[-2:], 16) % 200)


def space(folder: Path) -> int:
    return sum(entry.space for shard in SHARDS for entry in entries(folder / shard))


def used(store: Store, key: str, ago: float) -> None:
    then = time.time() - ago
    os.utime(store.path(key), (then, then))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def drawing() -> Item:
    sketch = np.zeros((32, 32), np.float32)
    sketch[4:20, 4] = sketch[4:20, 20] = sketch[4, 4:21] = sketch[20, 4:21] = 1
    return Item("key", np.zeros((32, 32, 3), np.uint8), "", drawing=sketch)


@given(sizes=st.lists(st.integers(1, 13_000), min_size=5, max_size=60))
@settings(deadline=None, max_examples=30)
def test_the_bound_holds_after_every_write(sizes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    store = small(folder)
    for number, size in enumerate(sizes):
        store.write(name(number), bytes(size))
        assert space(folder) <= ROOM
        assert store.read(name(number)) == bytes(size)  # the newest is never the one that goes
    shutil.rmtree(folder)


def test_the_bound_holds_where_others_wrote_before(tmp_path):
    for number in range(30):  # by three processes, one after another, that know nothing of each other
        small(tmp_path).write(name(number), bytes(4000))
    assert 0.8 * ROOM <= space(tmp_path) <= ROOM
    Store(tmp_path, ROOM * len(SHARDS) / 2).write(name(99), b"less room than there was")
    assert space(tmp_path) <= ROOM / 2


def test_the_least_recently_used_go_first(tmp_path):
    store = small(tmp_path)
    for number in range(10):
        store.write(name(number), bytes(4000))
        used(store, name(number), ago=3 * REFRESH - number)
    assert store.read(name(0)) == bytes(4000)  # marked as used now
    store.write(name(10), bytes(4000))
    gone = [number for number in range(11) if store.read(name(number)) is None]
    assert gone == [1, 2]


def test_reading_marks_at_most_once_an_hour(tmp_path):
    store = small(tmp_path)
    store.write(name(1), b"x")
    for ago, touched in ((REFRESH / 2, False), (2 * REFRESH, True)):
        used(store, name(1), ago)
        before = store.path(name(1)).stat().st_mtime
        assert store.read(name(1)) == b"x"
        assert (store.path(name(1)).stat().st_mtime != before) == touched


def test_what_kills_left_goes_and_what_is_not_the_caches_stays(tmp_path):
    store = small(tmp_path)
    shard = store.path(name(1)).parent
    shard.mkdir()
    stale, fresh = (shard / f".{name(n)}.graph.{n:016x}.tmp" for n in (1, 2))
    foreign = [shard / "thesis.docx", shard / ".tmp", shard / "0.graph", tmp_path / "notes"]
    for path in (stale, fresh, *foreign):
        path.write_bytes(bytes(2 * ROOM))
        os.utime(path, (1, 1))
    os.utime(fresh, (time.time() - STALE / 2,) * 2)
    for number in range(20):
        store.write(name(number), bytes(4000))
    assert not stale.exists() and fresh.exists() and all(path.exists() for path in foreign)


# several at once


def write_and_read(folder: Path, seed: int, bound: float, wrong) -> None:
    """Write shared names and others, in another order than the other processes, and check what can be read."""
    store = Store(folder, bound)
    keys = [name(n, shard=n % 3) for n in [*range(60), *range(1000 * (1 + seed), 1000 * (1 + seed) + 60)]]
    random.Random(seed).shuffle(keys)
    for key in keys:
        store.write(key, content(key))
        for other in random.Random(key).sample(keys, 3):
            if store.read(other) not in (None, content(other)):
                wrong.value += 1
        if seed == 0:
            store.remove(random.Random(key).choice(keys))  # as a reader removes a damaged one


@pytest.mark.parametrize("shards_of", [None, ROOM])
def test_several_processes_at_once(shards_of, tmp_path):
    """No process ever reads half an entry; where the bound is not reached, all of them are there in the end."""
    fork = multiprocessing.get_context("fork")
    wrong, bound = fork.Value("i", 0), (shards_of or 1e9) * len(SHARDS)
    started = [fork.Process(target=write_and_read, args=(tmp_path, seed, bound, wrong)) for seed in range(4)]
    for one in started:
        one.start()
    for one in started:
        one.join(60)
        assert one.exitcode == 0
    assert wrong.value == 0 and not list(tmp_path.rglob("*.tmp"))
    if shards_of:
        assert max(sum(e.space for e in entries(tmp_path / s)) for s in SHARDS) <= ROOM + 4 * max(ROOM / 16, 12_288)
    else:
        mine = [name(n, shard=n % 3) for seed in (1, 2, 3) for n in range(1000 * (1 + seed), 1000 * (1 + seed) + 60)]
        assert all(Store(tmp_path, bound).read(key) == content(key) for key in mine)


# failures


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_failing_write_is_reported_once_and_the_value_computed(code, tmp_path, monkeypatch, caplog):
    compute = preparer(compose_config([]))
    cache = CachedPreparer(compute, small(tmp_path), {})
    tries = []

    def fails(*paths):
        tries.append(paths)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(storing.os, "replace", fails)
    for _ in range(3):
        assert cache(drawing()).regions.count == compute(drawing()).regions.count
    assert cache.computed == 3 and len(tries) == 1 and not [p for p in tmp_path.rglob("*") if p.is_file()]
    (line,) = lines(caplog)
    assert str(tmp_path) in line and os.strerror(code) in line


def test_a_file_where_the_folder_should_be(tmp_path, caplog):
    (tmp_path / "file").write_text("mine")
    cache = CachedPreparer(preparer(compose_config([])), Store(tmp_path / "file" / "cache", 1e9), {})
    for _ in range(3):
        cache(drawing())
    assert cache.computed == 3 and len(lines(caplog)) == 1 and (tmp_path / "file").read_text() == "mine"


def test_a_folder_where_an_entry_should_be(tmp_path, caplog):
    store = small(tmp_path)
    store.path(name(1)).mkdir(parents=True)
    for _ in range(2):
        assert store.read(name(1)) is None
        store.write(name(1), b"x")
    assert len(lines(caplog)) == 1 and not list(tmp_path.rglob("*.tmp"))


def test_another_users_cache_can_be_read(tmp_path, monkeypatch, caplog):
    store = small(tmp_path)
    store.write(name(1), b"x")
    used(store, name(1), ago=2 * REFRESH)
    monkeypatch.setattr(storing.os, "utime", lambda path: (_ for _ in ()).throw(PermissionError(1, "not yours")))
    assert store.read(name(1)) == b"x" and not lines(caplog)


def test_a_folder_that_goes_while_it_is_used(tmp_path, caplog):
    store = small(tmp_path / "cache")
    store.write(name(1), b"x")
    shutil.rmtree(tmp_path / "cache")
    assert store.read(name(1)) is None
    store.write(name(1), b"y")
    assert store.read(name(1)) == b"y" and not lines(caplog)


def test_an_entry_larger_than_its_shard_is_reported_once(tmp_path, caplog):
    store = small(tmp_path)
    store.write(name(1), b"x")
    for number in (2, 3, 2):
        store.write(name(number), bytes(ROOM + 1))
    (line,) = lines(caplog)
    assert "cache.gigabytes" in line and store.read(name(2)) is None and store.read(name(1)) == b"x"


def test_environment_variables_choose_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variables, wanted in (
        ({"RAGAF_CACHE": "/scratch/graphs", "XDG_CACHE_HOME": "/xdg"}, Path("/scratch/graphs")),
        ({"XDG_CACHE_HOME": "/xdg"}, Path("/xdg/ragaf_exp")),
        ({"XDG_CACHE_HOME": ""}, tmp_path / ".cache/ragaf_exp"),
        ({}, tmp_path / ".cache/ragaf_exp"),
    ):
        for variable in ("RAGAF_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(variable, raising=False)
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        assert locate_cache("") == wanted
    assert locate_cache("~/mine") == tmp_path / "mine" and locate_cache("here") == Path("here").absolute()
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what a user without a home gets
    assert locate_cache("").is_absolute() and "~" not in str(locate_cache(""))
