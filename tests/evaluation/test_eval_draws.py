"""Sampled images are cached: a killed evaluation continues where it stopped, and never uses another run's images."""

from __future__ import annotations

import numpy as np
import pytest

from ragaf_exp.evaluation.samples import SampleCache, fingerprint
from ragaf_exp.inference.pipeline import SampledImages


def drawing(seed: int, stages: str = "both") -> SampledImages:
    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8) for _ in range(2)]
    if stages == "coarse":
        return SampledImages({"stage1": pictures[0]})
    return SampledImages(dict(zip(("stage1", "stage2"), pictures, strict=True)), rng.random((2, 3, 5)).astype(np.float32))


def never() -> SampledImages:
    raise AssertionError("drawn again")


@pytest.mark.parametrize("stages", ["both", "coarse"])
def test_a_batch_is_sampled_once(tmp_path, stages):
    first = SampleCache(tmp_path, "a").batch(["x", "y"], lambda: drawing(0, stages))
    again = SampleCache(tmp_path, "a").batch(["x", "y"], never)
    assert list(first.arrays) == list(again.arrays) == ["stage1", "stage2", "region_text"][: len(first.arrays)]
    for name, one in first.arrays.items():
        np.testing.assert_array_equal(one, again.arrays[name])
        assert one.dtype == again.arrays[name].dtype


def test_other_items_are_sampled(tmp_path):
    draws = SampleCache(tmp_path, "a")
    draws.batch(["x", "y"], lambda: drawing(0))
    other = draws.batch(["x", "z"], lambda: drawing(1))
    np.testing.assert_array_equal(other.images["stage2"], drawing(1).images["stage2"])


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_damaged_file_is_sampled_again(tmp_path, length):
    SampleCache(tmp_path, "a").batch(["x"], lambda: drawing(0))
    (path,) = (tmp_path / "a").iterdir()
    path.write_bytes(path.read_bytes()[:length])
    sampled = SampleCache(tmp_path, "a").batch(["x"], lambda: drawing(2))
    np.testing.assert_array_equal(sampled.images["stage1"], drawing(2).images["stage1"])
    SampleCache(tmp_path, "a").batch(["x"], never)


def test_images_of_other_weights_are_removed(tmp_path):
    first, second = fingerprint("a"), fingerprint("b")
    SampleCache(tmp_path, first).batch(["x"], lambda: drawing(0))
    sampled = SampleCache(tmp_path, second).batch(["x"], lambda: drawing(1))
    np.testing.assert_array_equal(sampled.images["stage1"], drawing(1).images["stage1"])
    assert [path.name for path in tmp_path.iterdir()] == [second]


def test_fingerprints_differ_where_facts_do():
    base = fingerprint({"seed": 0, "steps": 20}, 4, {"coarse": "ab"})
    assert base == fingerprint({"steps": 20, "seed": 0}, 4, {"coarse": "ab"}) and len(base) == 16
    assert base != fingerprint({"seed": 1, "steps": 20}, 4, {"coarse": "ab"})
    assert base != fingerprint({"seed": 0, "steps": 20}, 4, {"coarse": "cd"})
