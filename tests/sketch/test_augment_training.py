"""Augmentation in training: a function of (seed, step, item), of the training sketches alone, frozen by no cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.config.compose import compose_config
from ragaf_exp.data.loader import Augmented, batch_order, step_loader
from ragaf_exp.experiments.experiment import run
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.trainer import Trainer

pytestmark = pytest.mark.process

WORDS = ["augment=drawing", "stage.run=[coarse]"]


def made(tiny: list[str], place: Path, *words: str):
    """Parts of a tiny run."""
    place.mkdir(parents=True, exist_ok=True)
    return assemble(compose_config([*tiny, *WORDS, f"runs={place}", *words]), RunFolder(place))


@pytest.fixture(scope="module")
def parts(tiny, tmp_path_factory):
    return made(tiny, tmp_path_factory.mktemp("augmented"))


@pytest.fixture(scope="module")
def examples(parts) -> Augmented:
    return parts.examples("train")


def test_a_sketch_depends_on_seed_step_and_item(examples, parts, tiny, tmp_path):
    first = examples.at(3, 5).sketch
    others = [examples.at(4, 5).sketch, made(tiny, tmp_path, "seed=1").examples("train").at(3, 5).sketch]
    assert not any(np.array_equal(first, other) for other in others), "neither kept from another step nor another seed's"
    np.testing.assert_array_equal(examples.at(3, 5).sketch, first)
    np.testing.assert_array_equal(parts.examples("train").at(3, 5).sketch, first)
    plain = [examples[i].sketch for i in (5, 6)]
    change = [(examples.at(3, i).sketch - sketch)[0] for i, sketch in zip((5, 6), plain, strict=True)]
    assert not np.array_equal(*change), "each item has its own"


def test_only_sketch_regions_and_graph_change(examples, parts):
    for index in range(6):
        plain, recorded = examples[index], examples.at(2, index)
        assert recorded.item is plain.item, "image, drawing, caption and truth stay"
        np.testing.assert_array_equal(plain.sketch, parts.prepare.sketch(plain.item.image, plain.item.drawing))
        assert not np.array_equal(recorded.sketch, plain.sketch)
        regions = parts.prepare.regions(recorded.sketch)
        np.testing.assert_array_equal(recorded.regions.labels, regions.labels)
        np.testing.assert_array_equal(recorded.graph.nodes, parts.prepare.graph(regions).nodes)


def test_only_the_training_split_is_augmented(parts, tiny, tmp_path):
    assert isinstance(parts.examples("train"), Augmented)
    for split in ("val", "test"):
        result = parts.examples(split)
        assert not isinstance(result, Augmented) and result.at(1, 0) is result[0]
    for word in ("augment=none", "augment=drawing"):
        off = [f"augment.{key}=0" for key in ("affine", "jitter", "width", "gaps", "dropout", "specks", "grain")]
        words = [word, *(off if word == "augment=drawing" else [])]
        assert not isinstance(made(tiny, tmp_path, *words).examples("train"), Augmented), "at no cost"


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_know_their_step_wherever_they_are_made(workers, examples):
    def batches(first: int, last: int, workers: int = 0) -> list:
        return list(step_loader(examples, batch_order(len(examples), 4, 0, range(first, last)), workers, first))

    whole = batches(0, 8)
    for step, batch in enumerate(batches(3, 8, workers), 3):
        assert batch.keys == whole[step].keys
        for name in ("sketch", "labels", "nodes", "edges"):
            assert torch.equal(getattr(batch, name), getattr(whole[step], name))
    assert [e.shape for e in (whole[0].image, whole[0].sketch)] == [(4, 3, 32, 32), (4, 1, 32, 32)]


def tensors(folder: RunFolder) -> dict[str, bytes]:
    """Tensor files of the newest checkpoint: name -> bytes."""
    newest = max((folder.checkpoints / "coarse").iterdir())
    return {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}


def test_a_run_that_is_stopped_ends_as_the_undisturbed_one(tiny, finished, tmp_path, monkeypatch):
    """The second is stopped between two checkpoints, and a worker makes its batches."""
    words = [*tiny, *WORDS]
    whole = tensors(run(compose_config([*words, f"runs={tmp_path / 'a'}"])))
    cfg = compose_config([*words, f"runs={tmp_path / 'b'}", "stage.workers=1"])
    step = Trainer.step

    def stopped(self, at, batch):
        if at == 5:
            raise KeyboardInterrupt
        step(self, at, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", stopped)
        run(cfg)
    result = tensors(run(cfg))
    assert result == whole and len(whole) >= 3
    plain = tensors(RunFolder(finished))
    assert plain["model.safetensors"] != whole["model.safetensors"], "training does see the augmentation"
