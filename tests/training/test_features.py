"""Latents and text features kept on disk: the same training whichever process fills the folder, also after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run_files import train_all
from torch import Tensor, nn

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import Examples, collate, step_loader
from ragaf_exp.data.variants import Varied, pictures
from ragaf_exp.experiments.training import Training
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.conditioning import Text
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.store.records import HEAD, Records, key_of
from ragaf_exp.tasks.sketch_text import SketchText
from ragaf_exp.training.encoder_cache import fill
from ragaf_exp.training.encoder_cache.features import Featured, Latents

FIELDS = {"x": ("<f4", (2, 3)), "flag": ("?", (4,))}


class Little(Codec):
    """A small frozen codec with weights, in place of a trained one."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Conv2d(3, 48, 4, stride=4).requires_grad_(False)
        self.channels, self.downscale, self.encoded = 48, 4, 0

    def encode(self, image: Tensor) -> Tensor:
        self.encoded += len(image)
        return self.net(image)

    def decode(self, latent: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(latent[:, :3], scale_factor=4).clamp(-1, 1)


class Words(nn.Module):
    """A frozen text encoder: letters, padded to 24."""

    width = 32
    fingerprint = "words"
    reads_image = False

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Embedding(256, self.width).requires_grad_(False)
        self.encoded = 0

    def on(self, device: torch.device):
        """It stays where it is."""
        return nullcontext()

    def read(self, captions: list[str], keep: Tensor | None, image: Tensor | None) -> Text:
        """Encode captions alone: this encoder reads no image."""
        assert image is None
        return self(captions, keep)

    def forward(self, captions: list[str], keep: Tensor | None = None) -> Text:
        if keep is not None:
            captions = [c if k else "" for c, k in zip(captions, keep.tolist(), strict=True)]
        self.encoded += len(captions)
        ids = [[1, *c.encode()][:24] for c in captions]
        tokens = self.net(torch.tensor([row + [0] * (24 - len(row)) for row in ids]))
        return Text(tokens, torch.tensor([[i < len(row) for i in range(24)] for row in ids]))


def records(place: Path) -> Records:
    return Records(place, FIELDS, {"kind": "test"})


def arrays(i: int) -> dict[str, np.ndarray]:
    return {"x": np.full((2, 3), i, "f4"), "flag": np.array([i % 2, 1, 0, 1], bool)}


# --- records


def test_records_come_back_whoever_wrote_them(tmp_path):
    one, two = records(tmp_path), records(tmp_path)
    for i in range(4):
        (one, two)[i % 2].write(key_of(str(i)), arrays(i))
    assert key_of("1") not in one
    one.flush(), two.flush()
    for reader in (one.refresh(), two, records(tmp_path).refresh()):
        assert len(reader) == 4
        for i in range(4):
            result = reader.read(key_of(str(i)))
            assert all(np.array_equal(result[name], arrays(i)[name]) for name in FIELDS)
    assert len(list(tmp_path.glob("*.shard"))) == 2 and (tmp_path / "about.json").exists()


@settings(deadline=None, max_examples=25)
@given(cut=st.integers(0, 400), broken=st.integers(0, 399))
def test_a_shard_cut_short_or_damaged_gives_no_wrong_record(cut, broken, tmp_path_factory):
    place = tmp_path_factory.mktemp("cut")
    writer = records(place)
    for i in range(5):
        writer.write(key_of(str(i)), arrays(i))
    writer.flush()
    (shard,) = place.glob("*.shard")
    content = bytearray(shard.read_bytes()[: HEAD + cut])
    whole = min(5, cut // writer.dtype.itemsize)
    assert len(_reread(place, content)) == whole
    if HEAD + broken < len(content):
        content[HEAD + broken] ^= 1
        reader = _reread(place, content)
        for i in range(whole):
            try:
                assert np.array_equal(reader.read(key_of(str(i)))["x"], arrays(i)["x"])
            except (KeyError, UserError):
                continue  # the damaged record: its key is another, or it says so


def _reread(place: Path, content: bytes) -> Records:
    for old in place.glob("*.shard"):
        old.unlink()
    (place / f"{os.urandom(4).hex()}.shard").write_bytes(content)
    return records(place).refresh()


def test_records_of_another_size_are_refused(tmp_path):
    with pytest.raises(UserError, match="memory.features=none"):
        records(tmp_path).write(key_of("a"), {**arrays(0), "x": np.zeros((3, 3), "f4")})


def test_keys_are_of_content():
    image = np.zeros((4, 4, 3), np.uint8)
    same, other = image.copy(), image.copy()
    other[0, 0, 0] = 1
    assert key_of(image) == key_of(same) != key_of(other) and key_of(image) != key_of(image.reshape(2, 8, 3))
    assert len({key_of(image), key_of(image.astype("f4")), key_of(""), key_of("a")}) == 4


# --- training with them


@pytest.fixture(scope="module")
def experiment(tiny, tmp_path_factory) -> Training:
    """A tiny one whose codec and text encoder are frozen."""
    cfg = compose_config([*tiny, f"runs={tmp_path_factory.mktemp('features')}"])
    made = Training(cfg, RunFolder.create(cfg))
    made.parts.codec = Little()
    return made


@pytest.fixture
def prepare(experiment, tmp_path, monkeypatch) -> Callable[..., Featured]:
    """prepare(settings) -> what training gets; `prepare.words` is the text encoder."""
    words = Words()
    monkeypatch.setattr(fill, "build", lambda *args, **wiring: words)

    def call(**changes) -> Featured:
        cfg = experiment.cfg.copy()
        cfg.cache.folder, cfg.memory.features = str(tmp_path / "cache"), "all"
        for key, value in changes.items():
            group, _, name = key.partition("_")
            cfg[group][name] = value
        return fill.prepare(cfg, replace(experiment.parts, cfg=cfg), torch.device("cpu"))

    call.words, call.cache = words, tmp_path / "cache"
    return call


def test_losses_with_features_are_those_without(experiment, prepare):
    """Both stages, captions dropped and not, to the bit."""
    featured, words = prepare(), prepare.words
    chosen = [experiment.train_examples[i] for i in range(4)]
    for stage in ("coarse", "refine"):
        coarse = experiment.trainer("coarse", {})
        trainer = coarse if stage == "coarse" else experiment.trainer("refine", {"coarse": coarse.bare})
        trainer.bare.text = trainer.ema.model.text = words
        trainer.task = SketchText(caption_dropout=0.5)
        trainer.metrics_logger.recent.clear()
        before = {name: p.detach().clone() for name, p in trainer.bare.named_parameters()}
        for make in (collate, featured):
            trainer.bare.load_state_dict(before, strict=False)
            texts, images = words.encoded, experiment.parts.codec.encoded
            trainer.step(trainer.plan.steps - 1, make(chosen))
            used = (words.encoded - texts, experiment.parts.codec.encoded - images)
            assert used == ((4, 4) if make is collate else (0, 0)), "no encoder runs in a step that has features"
        plain, cached = trainer.metrics_logger.recent
        assert plain.keys() == cached.keys() and all(torch.equal(plain[name], cached[name]) for name in plain)


def test_a_second_pass_computes_nothing_and_a_killed_one_goes_on(experiment, prepare, monkeypatch):
    codec, words = experiment.parts.codec, prepare.words
    items = experiment.parts.source.split("train")
    before, compute, recorded = codec.encoded, Latents.compute, []

    def killed(self, images, device):
        recorded.append(1)
        if len(recorded) > 20:
            self.records.flush()
            raise KeyboardInterrupt
        compute(self, images, device)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Latents, "compute", killed)
        prepare()
    prepare()
    assert codec.encoded - before == len(items) == 64
    counted = codec.encoded, words.encoded
    prepare()
    assert (codec.encoded, words.encoded - 1) == counted, "but for the empty caption, which gives the size"


def test_mirrored_and_cropped_pictures_have_latents_of_their_own(experiment, prepare):
    codec, items = experiment.parts.codec, experiment.parts.source.split("train")
    before = codec.encoded
    featured = prepare(task_mirror=0.5, task_crops=1)
    made = codec.encoded - before
    assert 3.5 * len(items) < made <= 4 * len(items), "a window may hold all of an item"
    assert made == len(featured.latents.records)
    kinds = pictures(items, 1, True, 0)
    varied = Varied(*([Examples(some, experiment.parts.prepare) for some in kind] for kind in kinds), 0.5, 0)
    rows = [varied.at(3, i) for i in range(16)]
    shown = [[np.array_equal(row.item.image, some[i].image) for kind in kinds for some in kind]
             for i, row in enumerate(rows)]  # fmt: skip
    assert all(any(recorded) for recorded in shown) and all(0 < sum(recorded) < 12 for recorded in zip(*shown, strict=True))
    for i, row in enumerate(rows):
        assert np.array_equal(varied.at(3, i).item.image, row.item.image), "a function of the step"
        assert np.array_equal(varied[i].item.image, items[i].image), "by index as they are"
    batch = featured(rows)
    torch.testing.assert_close(batch.latent, codec.encode(batch.image), rtol=0, atol=1e-5)


def test_workers_read_them_too(experiment, prepare):
    examples = Examples(experiment.parts.source.split("train"), experiment.parts.prepare)
    featured = prepare()
    alone, worker = (next(iter(step_loader(examples, [[0, 1, 2]], workers, to_batch=featured))) for workers in (0, 1))
    assert torch.equal(alone.latent, worker.latent) and torch.equal(alone.text.tokens, worker.text.tokens)
    some = alone.rows(slice(1, 3))
    assert torch.equal(some.latent, alone.latent[1:3]) and torch.equal(some.text.mask, alone.text.mask[1:3])
    assert some.no_text is alone.no_text and alone.no_text.tokens.shape == (1, 24, 32)


def test_other_weights_and_sizes_have_folders_of_their_own(tmp_path):
    folders = {Latents(tmp_path, codec, size).records.folder for codec, size in
               ((Little(), 32), (Little(1), 32), (Little(), 64))}  # fmt: skip
    assert len(folders) == 3 and Latents(tmp_path, Little(), 32).records.folder in folders


def test_changed_data_is_reported_and_computed_again(experiment, prepare):
    featured = prepare()
    row = experiment.train_examples[0]
    other = replace(row, item=replace(row.item, caption="something else altogether"))
    with pytest.raises(UserError, match="the same command"):
        featured([other])
    assert not list(prepare.cache.rglob("*.whole.json"))


def test_features_of_trained_encoders_cant_be_stored(experiment, prepare, tiny, tmp_path):
    prepare.words.net.requires_grad_(True)
    with pytest.raises(UserError, match="text=TinyText is trained.*memory.features=latents") as refusal:
        prepare()
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="cache=default"):
        prepare(cache_enabled=False)
    assert prepare(memory_features="none") is None and prepare(memory_features="latents").texts is None
    cfg = compose_config([*tiny, "memory.features=all", f"runs={tmp_path}"])
    with pytest.raises(UserError, match="text=TinyText"):
        train_all(Training(cfg, RunFolder.create(cfg)))
