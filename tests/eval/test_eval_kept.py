"""Kept features are bounded: what was used longest ago goes, and prune knows of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from eval.features import load
from eval.features.cached import features_of
from eval.images import ImageSet
from eval.networks import Networks
from ragaf_exp.commands.cache.__main__ import main
from ragaf_exp.config.schema import Eval
from ragaf_exp.store.eviction import FOLDER, cached_sets, evict


def made(root: Path, number: int, age: float, size: int = 1000, whole: bool = True) -> Path:
    folder = root / f"{number:032x}"
    folder.mkdir(parents=True)
    (folder / ("features-0123.npy" if whole else "piece000000-0123.npy")).write_bytes(b"x" * size)
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def pictures(seed: int, count: int = 5) -> ImageSet:
    return ImageSet.arrays(np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8))


def test_what_was_used_longest_ago_goes_first(tmp_path):
    sets = [made(tmp_path, i, age) for i, age in enumerate((30, 10, 20))]
    assert evict(tmp_path, 2500) == (1, 1000, 2000)
    assert [one.path for one in cached_sets(tmp_path)] == [sets[2], sets[1]]
    assert evict(tmp_path, 2000) == (0, 0, 2000)
    assert evict(tmp_path, 0) == (2, 2000, 0) and not cached_sets(tmp_path)
    assert evict(tmp_path / "nowhere", 0) == (0, 0, 0)


def test_what_is_being_written_and_what_is_not_ours_stays(tmp_path):
    young, old = made(tmp_path, 0, 60, whole=False), made(tmp_path, 1, 7200, whole=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "features-1.npy").write_bytes(b"x" * 5000)
    assert evict(tmp_path, 0) == (1, 1000, 1000)
    assert young.exists() and not old.exists() and (tmp_path / "mine" / "features-1.npy").exists()


def test_reading_marks_a_set_as_used(tmp_path):
    network = load("embedded", device="cpu")
    first, second = (features_of(pictures(seed), network, tmp_path) for seed in (0, 1))
    one, other = (folder.path for folder in cached_sets(tmp_path))
    os.utime(one, (1, 1))
    os.utime(other, (2, 2))
    again = [features_of(pictures(seed), network, tmp_path) for seed in (0, 1)]
    np.testing.assert_array_equal(again, [first, second])
    assert all(folder.used > time.time() - 60 for folder in cached_sets(tmp_path))


def test_an_evaluation_keeps_within_the_bound(tmp_path):
    """A set of 5 takes about a kilobyte or two: the first ones make way, and all figures come out."""

    def measured(seed: int, gigabytes: float) -> float:
        networks = Networks(Eval(metrics=["fd_embedded"]), "cpu", str(tmp_path), gigabytes)
        return networks.measure(pictures(seed), pictures(seed + 100)).metrics["fd_embedded"]["value"]

    free = [measured(seed, 1.0) for seed in range(3)]
    root = tmp_path / FOLDER
    assert len(cached_sets(root)) == 6
    space = max(one.space for one in cached_sets(root))
    assert [measured(seed, 2.5 * space / 1e9) for seed in range(3)] == pytest.approx(free)
    assert len(cached_sets(root)) == 2
    assert measured(0, 1e-9) == pytest.approx(free[0]) and not cached_sets(root), "a bound below one set keeps nothing"


def test_prune_and_show_know_of_them(tmp_path, cli):
    for i in range(3):
        made(tmp_path / FOLDER, i, 10 * i, size=2_000_000)
    assert "features of 3 image sets, 6.00 MB" in cli(main, "show", f"folder={tmp_path}")[1]
    out = cli(main, "prune", f"folder={tmp_path}", "gigabytes=0.004")[1]
    assert "features of 1 image sets, 2.00 MB, removed, 4.00 MB left" in out
    out = cli(main, "prune", f"folder={tmp_path}", "gigabytes=all")[1]
    assert "features of 2 image sets, 4.00 MB, removed, 0.00 MB left" in out
    assert "features" not in cli(main, "show", f"folder={tmp_path}")[1].replace(str(tmp_path), "")
