"""CLIP models by name, tag, file and config: what loads, what is refused, what is unavailable. No download is made."""

from __future__ import annotations

import json
import logging
import os
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_clip import CONFIG, network, save

from eval.clip.scores import Clip
from eval.clip.weights import find
from eval.features.cached import features_of
from eval.images import ImageSet
from eval.unavailable import Unavailable
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed: pip install open-clip-torch")
IMAGES = [np.random.default_rng(i).integers(0, 256, (40, 56, 3), dtype=np.uint8) for i in range(9)]
CAPTIONS = [f"a {colour} star" for colour in ("red", "green", "blue", "beige")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return save(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(files: dict[str, str]) -> Clip:
    return Clip(**files, device="cpu")


def test_embeddings_are_open_clips_own(clip):
    from PIL import Image

    own = network()
    prepare = open_clip.image_transform(32, is_train=False)
    with torch.no_grad():
        images = own.encode_image(torch.stack([prepare(Image.fromarray(image)) for image in IMAGES]))
        texts = own.encode_text(open_clip.tokenize(CAPTIONS, context_length=16))
    np.testing.assert_allclose(clip.images(IMAGES), images.numpy(), atol=1e-5)
    np.testing.assert_allclose(clip.texts(CAPTIONS), texts.numpy(), atol=1e-5)
    assert clip.dim == 32 and clip.resize == "open_clip shortest bicubic 32x32"


def test_batches_and_repetition_change_nothing(clip, files):
    first = clip.images(IMAGES)
    assert np.array_equal(clip.images(iter(IMAGES)), first), "the same bits again"
    small = Clip(**files, device="cpu", batch=2)
    np.testing.assert_allclose(small.images(IMAGES), first, atol=1e-5)
    np.testing.assert_allclose(small.texts(CAPTIONS), clip.texts(CAPTIONS), atol=1e-5)
    assert clip.images([]).shape == clip.texts([]).shape == (0, 32)


def test_features_can_be_cached(clip, tmp_path):
    features = features_of(ImageSet.arrays(IMAGES), clip, tmp_path)
    np.testing.assert_allclose(features, clip.images(IMAGES), atol=1e-5)


@pytest.mark.parametrize(("precision", "near"), [("bf16", 0.05), ("fp16", 0.01)])
def test_low_precision_comes_near(clip, files, precision, near):
    low = Clip(**files, device="cpu", precision=precision)
    assert low.texts(CAPTIONS).dtype == np.float32
    for computed, wanted in ((low.images(IMAGES), clip.images(IMAGES)), (low.texts(CAPTIONS), clip.texts(CAPTIONS))):
        assert 0 < np.abs(computed - wanted).max() < near * np.abs(wanted).max()
    assert low.name != clip.name, "features of both are never mistaken for each other in a cache"


def test_loading_leaves_the_process_as_it_was(files):
    state, level, handlers = torch.get_rng_state(), logging.getLogger().level, list(logging.getLogger().handlers)
    Clip(**files, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert (logging.getLogger().level, logging.getLogger().handlers) == (level, handlers)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_facts_stored_with_a_figure(clip, files):
    facts = clip.facts()
    assert facts["network_checksum"] == checksum(Path(files["pretrained"]))
    assert facts["pretrained"] == "tiny.safetensors" and facts["precision"] == "fp32"
    assert facts["network"].startswith("clip tiny-")


def test_captions_that_are_cut_off_are_counted(clip):
    assert clip.truncated([]) == 0
    words = "a very " * 6 + "red star"  # 14 words, start and end: 16 tokens
    assert clip.truncated([words, "a star"]) == 0
    assert clip.truncated([f"{words} again", words, "a " * 400]) == 2


def test_torch_files_of_training_load(clip, files, tmp_path):
    state = {f"module.{key}": value for key, value in network().state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    other = Clip(config=files["config"], pretrained=str(tmp_path / "epoch_3.pt"), device="cpu")
    assert np.array_equal(other.images(IMAGES), clip.images(IMAGES))


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def pickled(folder: Path) -> Path:
    torch.save({"visual.proj": Trap(folder / "sprung")}, folder / "trap.pt")
    return folder / "trap.pt"


def other_network(folder: Path) -> Path:
    torch.save(network({**CONFIG, "embed_dim": 16}).state_dict(), folder / "other.pt")
    return folder / "other.pt"


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (pickled, "more than tensors"),
        (other_network, "holds no weights of tiny-"),
        (written("cut.safetensors", b"\x10\x00\x00"), "is damaged"),
        (written("cut.pt", b"PK\x03\x04 cut short"), "is damaged"),
        (written("empty.pt", b""), "is damaged"),
        (lambda folder: folder / "none.pt", "no such file"),
        (lambda folder: folder, "no such file"),
    ],
)
def test_wrong_weights_are_refused(make, says, files, tmp_path):
    with pytest.raises(UserError, match=says) as caught:
        Clip(config=files["config"], pretrained=str(make(tmp_path)), device="cpu")
    assert not isinstance(caught.value, Unavailable), "the user named the file: his mistake"
    assert "eval.clip_pretrained=" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists(), "nothing was unpickled"


def test_open_clips_second_attempt_is_safe_too(files, tmp_path, monkeypatch):
    """If torch.load raises TypeError, open_clip calls it without weights_only, which was once not its default."""
    calls = []

    def load(*_: Any, **options: Any) -> None:
        calls.append((options.get("weights_only"), os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")))
        raise TypeError("weights_only")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UserError):
        Clip(config=files["config"], pretrained=str(pickled(tmp_path)), device="cpu")
    assert calls == [(True, "1"), (None, "1")]


def test_a_hubs_config_says_how_images_are_prepared(clip, files, tmp_path):
    preparation = {"size": 32, "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash",
                   "interpolation": "bilinear"}  # fmt: skip
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preparation}))
    other = Clip(config=str(tmp_path / "open_clip_config.json"), pretrained=files["pretrained"], device="cpu")
    assert other.resize == "open_clip squash bilinear 32x32" and other.mean == (128, 128, 128)
    image = np.zeros((32, 32, 3), np.uint8)
    assert torch.equal(other.prepare(image), torch.full((3, 32, 32), -1.0))
    assert other.name != clip.name


def test_a_config_hides_no_model_of_its_name(files, tmp_path):
    (tmp_path / "ViT-B-32.json").write_text(json.dumps(CONFIG))
    Clip(config=str(tmp_path / "ViT-B-32.json"), pretrained=files["pretrained"], device="cpu")
    assert open_clip.get_model_config("ViT-B-32")["embed_dim"] == 512


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "is no open_clip model config"),
        ('{"embed_dim": 8}', "it needs embed_dim, vision_cfg, text_cfg"),
        ({**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "colour": 1}}, "can't build it"),
        ({**CONFIG, "preprocess_cfg": {"meen": 0}}, "preprocess_cfg.meen is unknown"),
        ({**CONFIG, "preprocess_cfg": {"resize_mode": "stretch"}}, "can't build it"),
        ({**CONFIG, "text_cfg": {"tokenizer_kwargs": {"trust_remote_code": True}}}, "run a stranger's code"),
    ],
)
def test_wrong_configs_are_refused(text, says, files, tmp_path):
    (tmp_path / "tiny.json").write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(UserError, match=says) as caught:
        Clip(config=str(tmp_path / "tiny.json"), pretrained=files["pretrained"], device="cpu")
    assert str(caught.value).startswith(f"eval.clip_config={tmp_path}")
    Clip(**files, device="cpu")  # and open_clip still works


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"config": "/none/tiny.json"}, "eval.clip_config=/none/tiny.json: can't be read"),
        ({"model": "ViT-B-33"}, "ViT-B-32"),
        ({"pretrained": "openay"}, "neither a file nor a tag of ViT-B-32-quickgelu; tags: openai"),
        ({"pretrained": ""}, "neither a file nor a tag"),
        ({"precision": "fp8"}, "eval.clip_precision=fp8: must be one of fp32, bf16, fp16"),
        ({"batch": 0}, "eval.clip_batch=0"),
        ({"device": "tpu"}, "must be one of auto, cpu, cuda"),
    ],
)
def test_wrong_options_are_refused(options, says):
    with pytest.raises(UserError, match=says) as caught:
        Clip(**{"device": "cpu", **options})
    assert not isinstance(caught.value, Unavailable) and "\n" not in str(caught.value)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No name is resolved, no proxy is known, the hub's cache is an empty folder: the one returned."""

    def unknown(*_: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_tag_without_a_network_is_unavailable_at_once(offline, monkeypatch):
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_: pytest.fail("the hub's client tries for 47 seconds"))
    with pytest.raises(Unavailable, match="Name or service not known") as caught:
        Clip("ViT-B-32", "laion2b_s34b_b79k", device="cpu")
    message = str(caught.value)
    assert "https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K/resolve/main/" in message
    assert "set eval.clip_pretrained=PATH" in message and "\n" not in message


def test_a_failed_download_is_unavailable(offline, monkeypatch):
    def refuse(*_: Any) -> str:
        raise RuntimeError("403\nForbidden")

    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr(open_clip, "download_pretrained", refuse)
    with pytest.raises(Unavailable, match="403 Forbidden"):
        Clip(device="cpu")


def test_a_cached_tag_needs_no_network(offline):
    """OpenAI's weights also get the activation that they were trained with, under either name."""
    folder = offline / "models--timm--vit_base_patch32_clip_224.openai"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    weights = folder / "snapshots" / "abc" / "open_clip_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    for model in ("ViT-B-32", "ViT-B-32-quickgelu"):
        source = find(model, "openai", "")
        assert (source.name, source.weights, source.label) == ("ViT-B-32-quickgelu", weights, "openai")
    with pytest.raises(UserError, match="is damaged"):
        Clip(device="cpu")


def test_a_package_that_is_missing_is_unavailable(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(Unavailable, match="pip install 'open-clip-torch"):
        Clip(device="cpu")


def test_files_are_prepared_for_as_their_models_tags(tmp_path, caplog):
    """SigLIP's images are not normalised as CLIP's; open_clip itself forgets that where a file is named."""
    (tmp_path / "weights.pt").touch()
    of = {model: find(model, str(tmp_path / "weights.pt"), "").preparation for model in
          ("ViT-B-16-SigLIP", "ViT-B-32", "ViT-L-14")}  # fmt: skip
    assert of["ViT-B-16-SigLIP"]["mean"] == (0.5, 0.5, 0.5)
    assert of["ViT-B-16-SigLIP"]["resize_mode"] == "squash"
    assert of["ViT-B-32"]["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert of["ViT-L-14"] == {} and "eval.clip_model=ViT-L-14: its published weights differ" in caplog.text
