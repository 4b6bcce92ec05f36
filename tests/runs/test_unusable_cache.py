"""A cache that can't be used costs its time, never the figures."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eval.features import cached, load
from eval.features.cached import features_of
from eval.images import ImageSet
from eval.networks import Networks
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Eval
from ragaf_exp.evaluation.run import evaluate_run
from ragaf_exp.runs.folder import RunFolder


def pictures(seed: int, count: int = 5) -> ImageSet:
    return ImageSet.arrays(np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8), name=f"set {seed}")


@pytest.fixture(autouse=True)
def warned_of_nothing() -> None:
    cached._warn_once.cache_clear()


def _failing(number: int, after: int = 0) -> Callable:
    """os.replace of a disk that takes `after` files more."""
    replace, left = os.replace, [after]

    def call(source: str, target: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number), str(source))
        replace(source, target)

    return call


def unusable(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cache folder that is no such thing."""
    if kind == "/dev/full":
        return kind
    place = tmp_path / "cache"
    if kind == "a file":
        place.write_text("mine")
    else:
        number = errno.EROFS if kind == "read-only" else errno.ENOSPC
        monkeypatch.setattr(cached.os, "replace", _failing(number, after=2 * (kind == "filled meanwhile")))
    return str(place)


KINDS = ("/dev/full", "a file", "read-only", "full", "filled meanwhile")


@pytest.mark.parametrize("kind", KINDS)
def test_features_come_out_and_one_warning(kind, tmp_path, monkeypatch, caplog):
    free = Networks(Eval(metrics=["fd_embedded"]), "cpu", str(tmp_path / "free")).measure(pictures(0), pictures(1))
    place = unusable(kind, tmp_path, monkeypatch)
    networks = Networks(Eval(metrics=["fd_embedded"]), "cpu", place)
    for _ in range(2):
        result = networks.measure(pictures(0), pictures(1))
        assert result.metrics["fd_embedded"]["value"] == free.metrics["fd_embedded"]["value"]
    output = [record.message for record in caplog.records]
    assert len(output) == 1 and place in output[0] and "without being stored" in output[0], output


def test_a_disk_that_fills_keeps_what_was_computed(tmp_path, monkeypatch):
    network, images = load("embedded", device="cpu"), pictures(0, 20)
    wanted = features_of(images, network, None)
    monkeypatch.setattr(cached, "PIECE", 6)
    made = []
    features = network.features
    monkeypatch.setattr(network, "features", lambda batch: made.append(len(batch)) or features(batch))
    with monkeypatch.context() as patch:
        patch.setattr(cached.os, "replace", _failing(errno.ENOSPC, after=3))
        np.testing.assert_array_equal(features_of(images, network, tmp_path), wanted)
    assert sum(made) == 20
    np.testing.assert_array_equal(features_of(images, network, tmp_path), wanted)
    assert sum(made) == 20 + 8, "the two pieces that were written are read"


def test_without_a_folder_nothing_is_written_or_hashed(tmp_path, monkeypatch):
    monkeypatch.setenv("RAGAF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ImageSet, "checksum", property(lambda self: pytest.fail("hashed")))
    assert features_of(pictures(0), load("embedded", device="cpu"), None).shape[0] == 5
    assert not (tmp_path / "cache").exists()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["/dev/full", "a file", None])
def test_an_evaluation_of_a_run(kind, run_copy, tiny, tmp_path, monkeypatch, caplog):
    """kind None: cache=none, which leaves the cache alone."""
    place = unusable(kind, tmp_path, monkeypatch) if kind else str(tmp_path / "untouched")
    monkeypatch.setenv("RAGAF_CACHE", place)
    folder, cfg = RunFolder.read(run_copy)
    cfg.eval.metrics = ["fd_embedded"]
    cfg.cache = compose_config(["cache=default" if kind else "cache=none"]).cache
    assert "fd_embedded" in evaluate_run(folder, cfg)["metrics"]
    output = [record.message for record in caplog.records if "without being stored" in record.message]
    assert len(output) == bool(kind)
    stored = [path.name for path in (tmp_path / "untouched").rglob("*")]
    assert all(name.startswith(".key-") for name in stored), "the user's key alone, by which runs are known again"
