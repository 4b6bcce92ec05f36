"""Features stored on disk: computed once, resumed after a kill, replaced where damaged, never all in memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.features import cached
from eval.features.base import Network
from eval.features.cached import features_of, folder_name, moments
from eval.images import AHEAD, WORKERS, ImageSet
from ragaf_exp.core.errors import UserError


class Means(Network):
    """Features that can be worked out by hand: the channels' means, and their squares."""

    name, dim, resize, batch, checksum = "means", 6, "none", 4, "0" * 64

    def __init__(self) -> None:
        super().__init__("cpu")
        self.images = 0

    def prepare(self, picture: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)

    def embed(self, batch: torch.Tensor) -> torch.Tensor:
        self.images += len(batch)
        means = batch.mean((2, 3))
        return torch.cat([means, means**2], 1)


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def images_of(count: int, seed: int = 0) -> ImageSet:
    return ImageSet.arrays(list(np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(cached, "PIECE", 10)


def feature_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.npy"))


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 255
    path.write_bytes({"bit": content, "cut": content[:-9], "empty": b"", "text": b"not an array"}[how])


def test_features_are_those_of_the_network_and_mapped(tmp_path):
    images, network = images_of(37), Means()
    features = features_of(images, network, tmp_path)
    np.testing.assert_array_equal(features, Means()(list(images)))
    assert isinstance(features, np.memmap) and features.shape == (37, 6) and features.dtype == np.float32
    assert [path.name[:9] for path in feature_files(tmp_path)] == ["features-"], "the pieces are gone"


def test_they_are_computed_once(tmp_path):
    images, network = images_of(25), Means()
    first = features_of(images, network, tmp_path)
    again = features_of(images_of(25), network, tmp_path)
    np.testing.assert_array_equal(first, again)
    assert network.images == 25


def test_other_images_weights_or_resizing_are_others(tmp_path):
    network = Means()
    names = {folder_name(images, network) for images in (images_of(5), images_of(5, seed=1), images_of(5)[:4])}
    for key, value in {"checksum": "1" * 64, "resize": "bicubic 64", "name": "medians"}.items():
        other = Means()
        setattr(other, key, value)
        names.add(folder_name(images_of(5), other))
    assert len(names) == 6
    features_of(images_of(5), network, tmp_path)
    features_of(images_of(5, seed=1), network, tmp_path)
    assert network.images == 10


@pytest.mark.parametrize("after", [0, 3, 10, 17, 33])
def test_a_kill_costs_one_piece(after, tmp_path):
    images, network = images_of(37), Means()
    embed = network.embed

    def dying(batch):
        if network.images >= after:
            raise Killed
        return embed(batch)

    network.embed = dying
    with pytest.raises(Killed):
        features_of(images, network, tmp_path)
    network.embed, whole = embed, network.images // 10 * 10
    network.images = 0
    np.testing.assert_array_equal(features_of(images, network, tmp_path), Means()(list(images)))
    assert network.images == 37 - whole


def test_a_killed_process_is_continued(tmp_path):
    """A real SIGKILL, while a piece is being written."""
    script = "\n".join([
        "import os, signal, sys",
        "sys.path.insert(0, sys.argv[2])",
        "from test_eval_statistics import Means, cached, images_of",
        "cached.PIECE, replace = 10, os.replace",
        "def dying(source, target):",
        "    if 'piece000002' in str(target): os.kill(os.getpid(), signal.SIGKILL)",
        "    replace(source, target)",
        "os.replace = dying",
        "cached.features_of(images_of(37), Means(), sys.argv[1])",
    ])  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)], timeout=200)
    assert done.returncode == -signal.SIGKILL
    assert [path.name[:11] for path in feature_files(tmp_path)] == ["piece000000", "piece000001"]
    network = Means()
    np.testing.assert_array_equal(features_of(images_of(37), network, tmp_path), Means()(list(images_of(37))))
    assert network.images == 17


@pytest.mark.parametrize("how", ["bit", "cut", "empty", "text"])
def test_damaged_features_are_computed_again(how, tmp_path, caplog):
    images, network = images_of(25), Means()
    expected = np.array(features_of(images, network, tmp_path))
    (path,) = feature_files(tmp_path)
    damage(path, how)
    network.images = 0
    np.testing.assert_array_equal(features_of(images, network, tmp_path), expected)
    assert network.images == 25 and "damaged" in caplog.text
    assert feature_files(tmp_path) == [path], "the same file again"


@pytest.mark.parametrize("how", ["bit", "cut", "empty", "text"])
def test_a_damaged_piece_costs_that_piece(how, tmp_path, monkeypatch):
    images, network = images_of(37), Means()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(cached, "_join", lambda *_: (_ for _ in ()).throw(Killed()))
        features_of(images, network, tmp_path)
    assert len(feature_files(tmp_path)) == 4
    damage(feature_files(tmp_path)[1], how)
    network.images = 0
    np.testing.assert_array_equal(features_of(images, network, tmp_path), Means()(list(images)))
    assert network.images == 10


def test_features_of_another_shape_are_not_taken(tmp_path):
    """Another number of dimensions under the same checksum: a valid file, but not of the requested shape."""
    images, network = images_of(12), Means()
    features = np.array(features_of(images, network, tmp_path))
    (path,) = feature_files(tmp_path)
    path.unlink()
    np.save(path.with_name("x.npy"), features[:, :5])
    digest = cached.checksum(path.with_name("x.npy"))[:16]
    path.with_name("x.npy").rename(path.with_name(f"features-{digest}.npy"))
    np.testing.assert_array_equal(features_of(images, network, tmp_path), features)


def test_leftovers_are_swept_but_not_those_being_written(tmp_path):
    images, network = images_of(12), Means()
    folder = tmp_path / folder_name(images, network)
    folder.mkdir()
    for name, age in {".features.old.tmp": 7200, ".features.new.tmp": 0}.items():
        (folder / name).write_bytes(b"half")
        then = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (then, then))
    features_of(images, network, tmp_path)
    assert [path.name for path in folder.glob(".*")] == [".features.new.tmp"]


def test_many_at_once_agree(tmp_path):
    images = images_of(60)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: features_of(images, Means(), tmp_path), range(4)))
    for features in results:
        np.testing.assert_array_equal(features, Means()(list(images)))


def test_a_bad_picture_stops_it_and_keeps_the_rest(tmp_path):
    pictures = list(images_of(37))
    read = [*pictures[:25], pictures[25].astype(np.float32), *pictures[26:]]
    images = ImageSet("set", [str(i) for i in range(37)], lambda i: read[i], str)
    network = Means()
    with pytest.raises(UserError, match="set: 25"):
        features_of(images, network, tmp_path)
    assert len(feature_files(tmp_path)) == 2
    read[25] = pictures[25]
    network.images = 0
    np.testing.assert_array_equal(features_of(images, network, tmp_path), Means()(pictures))
    assert network.images == 17


def test_pictures_are_never_all_held(tmp_path):
    """400 MB of pictures and 4 MB of features, in a few pictures' memory."""
    side, count = 256, 2000
    made = ImageSet("made", [str(i) for i in range(count)],
                    lambda i: np.full((side, side, 3), i % 256, np.uint8), str)  # fmt: skip
    network = Means()
    tracemalloc.start()
    try:
        features = features_of(made, network, tmp_path)
        mean, _ = moments(features)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mean[0] == pytest.approx(np.mean(np.arange(count) % 256))
    waiting = AHEAD * WORKERS + 2 * network.batch
    assert peak < waiting * 5 * side * side * 3 + 20_000_000 < 100_000_000


def test_a_progress_bar_goes_on_where_it_stopped(tmp_path, capsys):
    features_of(images_of(12), Means(), tmp_path)
    assert "means features" in capsys.readouterr().err
    features_of(images_of(12), Means(), tmp_path)
    assert capsys.readouterr().err == "", "nothing to do, nothing to show"


def test_a_description_is_stored_with_the_features(tmp_path):
    images, network = images_of(12), Means()
    features_of(images, network, tmp_path)
    about = json.loads((tmp_path / folder_name(images, network) / "about.json").read_text())
    assert about == {"schema": 1, "images": "images", "images_checksum": images.checksum, "count": 12, **network.facts()}
