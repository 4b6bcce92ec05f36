"""Neural extractors with random weights in real files: loading, agreement with controlnet_aux, sizes, options, errors."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from extractor_weights import NEURAL, save_random
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensors import SAFE
from ragaf_exp.sketch import neural
from ragaf_exp.sketch.lineart import LineArt
from ragaf_exp.sketch.loading import library
from ragaf_exp.sketch.neural import Neural


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {name: save_random(name, folder) for name in NEURAL}


@pytest.fixture(scope="module")
def made(files) -> dict[str, Neural]:
    return {name: kind(str(files[name]), device="cpu") for name, kind in NEURAL.items()}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Something with edges, uint8 (128,192,3); sides as controlnet_aux takes them without resizing."""
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (8, 12, 3)), np.ones((16, 16, 1))).astype(np.uint8)


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None] / 255


# --- what the networks see and say


@pytest.mark.parametrize("name", ["hed", "lineart", "teed"])
def test_edges_are_those_of_controlnet_aux(name, made, files, photo):
    extractor = made[name]
    options = {"teed": {"safe_steps": 0}}.get(name, {"image_resolution": 128})
    if name == "lineart":
        detector = library().LineartDetector(extractor.network(), None)
    else:
        detector = getattr(library(), extractor.DETECTOR)(extractor.network())
    wanted = detector(photo, detect_resolution=128, output_type="np", **options)[..., 0] / 255
    with torch.inference_mode():
        result = extractor.edges(extractor.network(), as_tensor(photo))[0, 0].numpy()
    assert wanted.std() > 0.005
    np.testing.assert_allclose(result, wanted, atol=1.1 / 255)
    assert abs(extractor(photo, None) - wanted)[48:80, 48:144].mean() < 0.02, "the mirrored margin is far from here"


def test_pidinet_sees_pictures_as_in_its_training(made, photo):
    extractor = made["pidinet"]
    recorded = (photo / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.inference_mode():
        wanted = extractor.network()(torch.from_numpy(recorded.transpose(2, 0, 1).astype(np.float32))[None])[-1][0, 0]
        result = extractor.edges(extractor.network(), as_tensor(photo))[0, 0]
    torch.testing.assert_close(result, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NEURAL)
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (33, 1), (7, 90), (64, 64), (45, 31)])
def test_any_size_comes_back(name, shape, made):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    sketch = made[name](image, None)
    assert sketch.shape == shape and sketch.dtype == np.float32
    assert np.isfinite(sketch).all() and sketch.min() >= 0 and sketch.max() <= 1
    np.testing.assert_array_equal(made[name](image, None), sketch)


@given(
    seed=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40), steps=st.integers(0, 4),
    resolution=st.sampled_from([0, 16, 48]), threshold=st.sampled_from([0.0, 0.45, 1.0]), thin=st.booleans(),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_options_keep_range_and_shape(files, seed, height, width, resolution, steps, threshold, thin):
    extractor = OPTIONED.setdefault((resolution, steps, threshold, thin), NEURAL["teed"](
        str(files["teed"]), "cpu", resolution, steps, threshold, thin))  # fmt: skip
    image = np.random.default_rng(seed).random((height, width, 3))
    sketch = extractor(image, None)
    assert sketch.shape == (height, width) and sketch.dtype == np.float32
    assert sketch.min() >= 0 and sketch.max() <= 1
    if threshold or thin:
        assert set(np.unique(sketch)) <= {0, 1}


OPTIONED: dict[tuple, Neural] = {}


def test_options_do_what_they_say(files, photo):
    path = str(files["teed"])
    soft = NEURAL["teed"](path, "cpu")(photo, None)
    assert len(np.unique(soft)) > 100
    safe = NEURAL["teed"](path, "cpu", safe_steps=2)(photo, None)
    np.testing.assert_array_equal(safe, np.minimum(np.floor(soft * 3) / 2, 1))
    level = float(np.quantile(soft, 0.6))
    hard = NEURAL["teed"](path, "cpu", threshold=level)(photo, None)
    np.testing.assert_array_equal(hard, soft >= level)
    thin = NEURAL["teed"](path, "cpu", threshold=level, thin=True)(photo, None)
    assert 0 < thin.sum() < 0.8 * hard.sum() and not (thin > hard).any()


def test_the_network_gets_the_requested_resolution(files, photo):
    recorded = []
    extractor = NEURAL["teed"](str(files["teed"]), "cpu", resolution=64)
    extractor.edges = lambda network, x: recorded.append(tuple(x.shape[2:])) or x[:, :1]
    for shape in ((128, 192), (32, 32), (192, 128), (1, 4000)):
        assert extractor(np.full((*shape, 3), 77, np.uint8), None) == pytest.approx(77 / 255, abs=1e-3)
    inner = [(h - 2 * neural.MARGIN, w - 2 * neural.MARGIN) for h, w in recorded]
    assert inner == [(64, 96), (64, 64), (96, 64), (16, 512)], "a long thin picture is bounded"


# --- one network, lazily, anywhere


@pytest.mark.long
def test_nothing_is_loaded_before_the_first_picture(process):
    code = ("import sys; from extractor_weights import NEURAL; made = [k('nowhere.pth') for k in NEURAL.values()];"
            "assert 'controlnet_aux' not in sys.modules; from ragaf_exp.sketch.neural import Neural")  # fmt: skip
    done = process("timeit", "-n1", "-r1", code, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    done = process("timeit", "-n1", "-r1", "import ragaf_exp.sketch, sys; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_a_copy_for_another_process_holds_no_network(made, photo):
    sketch = made["hed"](photo[:32, :32], None)
    packed = pickle.dumps(made["hed"])
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed)(photo[:32, :32], None), sketch)


class OneSketch(torch.utils.data.Dataset):
    def __init__(self, extractor: Neural, image: np.ndarray):
        self.extractor, self.image = extractor, image

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.extractor(self.image, None)


def test_loader_workers_give_the_same(files, photo):
    here = NEURAL["teed"](str(files["teed"]))(photo, None)
    (there,) = DataLoader(OneSketch(NEURAL["teed"](str(files["teed"])), photo), num_workers=1)
    np.testing.assert_allclose(there[0].numpy(), here, atol=1e-5)


def test_a_runs_generator_and_precision_are_not_touched(files, photo, made):
    before = torch.get_rng_state()
    extractor = NEURAL["pidinet"](str(files["pidinet"]), "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        sketch = extractor(photo, None)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(sketch, made["pidinet"](photo, None))


def test_devices(files, monkeypatch):
    assert NEURAL["teed"](str(files["teed"]))._device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="sketch.device=cuda: PyTorch sees no CUDA"):
        NEURAL["teed"](str(files["teed"]), "cuda")(np.zeros((8, 8, 3)), None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert NEURAL["teed"](str(files["teed"]))._device().type == "cuda"
    monkeypatch.setattr(neural, "get_worker_info", lambda: object())
    assert NEURAL["teed"](str(files["teed"]))._device().type == "cpu", "workers leave the device to the training"
    with pytest.raises(UserError, match="sketch.device=cuda.*stage.workers=0"):
        NEURAL["teed"](str(files["teed"]), "cuda")._device()


# --- the hub


@pytest.fixture
def hub(files, monkeypatch, tmp_path):
    """The hub as controlnet_aux sees it: it asks for (repo, file) and gets the file's path."""
    requested = []

    def download(repo, file, **_):
        requested.append((repo, file))
        assert os.environ[SAFE] == "1", "whatever it loads, it loads tensors alone"
        if file == "sk_model2.pth":
            return save_random("lineart", tmp_path, seed=1)
        return next(path for path in files.values() if path.name == file)

    for module in ("hed", "lineart", "pidi", "teed"):
        monkeypatch.setattr(library(module), "hf_hub_download", download)
    return requested


@pytest.mark.parametrize("name", NEURAL)
def test_the_hubs_weights_come_by_the_librarys_loader(name, hub, made, photo, monkeypatch):
    monkeypatch.delenv(SAFE, raising=False)
    before = torch.get_rng_state()
    sketch = NEURAL[name](device="cpu")(photo, None)
    np.testing.assert_array_equal(sketch, made[name](photo, None))
    repo = "fal-ai/teed" if name == "teed" else "lllyasviel/Annotators"
    assert hub[0] == (repo, NEURAL[name].FILE)
    assert torch.equal(torch.get_rng_state(), before) and SAFE not in os.environ


def test_lineart_has_a_second_model(hub, files, photo, tmp_path):
    coarse = LineArt(device="cpu", coarse=True)(photo, None)
    np.testing.assert_array_equal(coarse, LineArt(str(save_random("lineart", tmp_path, seed=1)), "cpu")(photo, None))
    assert abs(coarse - LineArt(str(files["lineart"]), "cpu")(photo, None)).max() > 0.01


@pytest.mark.parametrize("name", NEURAL)
def test_without_the_hub_it_says_what_to_fetch_and_where_to_put_it(name, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route\nto the hub")

    for module in ("hed", "lineart", "pidi", "teed"):
        monkeypatch.setattr(library(module), "hf_hub_download", unreachable)
    kind = NEURAL[name]
    with pytest.raises(UserError, match="no route to the hub") as refusal:
        kind()(np.zeros((8, 8, 3), np.uint8), None)
    line = str(refusal.value)
    assert "\n" not in line and f"https://huggingface.co/{kind.REPO}/resolve/main/{kind.FILE}" in line
    assert f"sketch.weights=PATH/{kind.FILE}" in line


def test_without_controlnet_aux_it_says_what_to_install(files, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == "controlnet_aux"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "controlnet_aux", None)
    for weights in ("", str(files["hed"])):
        with pytest.raises(UserError, match=r"needs controlnet_aux.*pip install 'ragaf_exp\[extractors\]'") as refusal:
            NEURAL["hed"](weights)(np.zeros((8, 8, 3), np.uint8), None)
        assert "\n" not in str(refusal.value)
