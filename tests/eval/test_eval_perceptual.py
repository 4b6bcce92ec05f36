"""LPIPS: the authors' own figures, identities, damage, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from eval.lpips import FILES, Lpips
from eval.unavailable import Unavailable
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.images import read_image

lpips = pytest.importorskip("lpips", reason="lpips is not installed: pip install lpips")
HEADS = Path(lpips.__file__).parent / "weights" / "v0.1"


def package(net: str, seed: int = 0) -> torch.nn.Module:
    """The package's own metric with its heads, over random weights."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision by arguments of old
        torch.manual_seed(seed)
        return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


def layers(own: torch.nn.Module) -> dict[str, Tensor]:
    """The weights under it, as torchvision names them."""
    return {"features." + key.split(".", 1)[1]: value for key, value in own.net.state_dict().items()}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("lpips") / "squeezenet.pth"
    torch.save(layers(package("squeeze")), path)
    return str(path)


@pytest.fixture(scope="module")
def metric(backbone: str) -> Lpips:
    return Lpips("squeeze", backbone, device="cpu")


@pytest.fixture(scope="module")
def trained(shared_data: Path) -> Lpips:
    """LPIPS with ImageNet's weights; skips where they are absent."""
    weights = shared_data.parent / "weights"
    file = weights / "squeezenet11" / "squeezenet1_1_torchvision_fp16.pth"
    if not file.is_file():
        pytest.skip(f"no {file}")
    return Lpips("squeeze", str(file), str(weights / "lpips" / "v0.1" / "squeeze.pth"), device="cpu")


def photo(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_authors_figures(trained, shared_data):
    folder = shared_data.parent / "weights" / "lpips" / "imgs"
    reference, far, near = (read_image(folder / f"ex_{name}.png") for name in ("ref", "p0", "p1"))
    distances = trained.scores([far, near, reference], [reference] * 3)
    assert distances == pytest.approx([0.711, 0.148, 0.0], abs=0.01)


def test_growing_damage_grows_the_distance(trained, shared_data):
    files = sorted((shared_data / "coco_mini" / "val2017").glob("*.jpg"))[:4]
    truth = [cv2.resize(read_image(file), (96, 96), interpolation=cv2.INTER_AREA) for file in files]
    noise = np.random.default_rng(0).normal(size=(96, 96, 3))
    damages: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
        "blur": lambda image, step: cv2.GaussianBlur(image, (0, 0), step),
        "noise": lambda image, step: np.clip(image + 15 * step * noise, 0, 255).astype(np.uint8),
        "shift": lambda image, step: np.roll(image, 2 * step, axis=1),
    }
    for name, damage in damages.items():
        means = [np.mean(trained.scores([damage(t, step) for t in truth], truth)) for step in (1, 2, 4)]
        assert 0.01 < means[0] < means[1] < means[2], (name, means)


def test_identities(metric):
    images = [photo(i) for i in range(5)]
    assert metric.scores(images, images) == [0.0] * 5
    there, back = metric.scores(images, images[::-1]), metric.scores(images[::-1], images)
    assert there == pytest.approx(back, abs=1e-6) and min(np.delete(there, 2)) > 0
    assert metric.scores([], []) == []


@pytest.mark.parametrize("net", FILES)
def test_distances_equal_the_packages_own(net, tmp_path):
    """Weights come to every place that the package's own loading puts them; and the smallest picture goes through."""
    own, side = package(net), FILES[net][2]
    torch.save({"classifier.1.bias": torch.zeros(3), **layers(own)}, tmp_path / "backbone.pth")
    metric = Lpips(net, str(tmp_path / "backbone.pth"), device="cpu")
    for size in ((48, 64), (side, side)):
        first, second = (torch.from_numpy(photo(i, *size)).permute(2, 0, 1)[None] / 255 for i in (0, 1))
        with torch.no_grad():
            wanted = own(first, second, normalize=True).item()
        assert metric([photo(0, *size)], [photo(1, *size)])[0] == pytest.approx(wanted, rel=1e-4)
        assert wanted > 1e-3
    with pytest.raises(UserError, match=f"too small for {net}; it takes {side} and more"):
        metric([photo(0, side - 1, 64)], [photo(1, side - 1, 64)])


def test_batches_and_sizes_change_nothing(metric, backbone):
    images = [photo(i, *size) for i, size in enumerate([(48, 64)] * 5 + [(40, 40)] * 2 + [(48, 64)])]
    others = [image[::-1].copy() for image in images]
    distances = metric.scores(images, others)
    assert distances == metric.scores(iter(images), iter(others), len(images)), "the same bits again"
    one = Lpips("squeeze", backbone, device="cpu", batch=1)
    assert distances == pytest.approx(one.scores(images, others), abs=1e-6)


def test_cpu_batches_are_bounded_by_pixels(metric, monkeypatch):
    sizes = []
    own = Lpips.__call__
    monkeypatch.setattr(Lpips, "__call__", lambda self, a, b: sizes.append(len(a)) or own(self, a, b))
    metric.scores([photo(0, 256, 256)] * 5, [photo(1, 256, 256)] * 5)
    metric.scores([photo(0, 32, 32)] * 40, [photo(1, 32, 32)] * 40)
    assert sizes == [4, 1, 32, 8]


def test_half_precision_files_come_near(metric, tmp_path):
    torch.save({k: v.half() for k, v in layers(package("squeeze")).items()}, tmp_path / "half.pth")
    half = Lpips("squeeze", str(tmp_path / "half.pth"), device="cpu")
    images = [photo(i) for i in range(3)]
    assert half.scores(images, images[::-1]) == pytest.approx(metric.scores(images, images[::-1]), rel=0.01)
    assert half.checksums["backbone"] != metric.checksums["backbone"]
    assert half.checksums["heads"] == metric.checksums["heads"]


def test_facts_stored_with_a_figure(metric):
    facts = metric.facts()
    assert (facts["net"], facts["version"]) == ("squeeze", "0.1")
    assert len(facts["backbone_checksum"]) == len(facts["heads_checksum"]) == 64


def test_loading_moves_no_generator(backbone):
    state = torch.get_rng_state()
    Lpips("squeeze", backbone, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"net": "resnet"}, "eval.lpips_net=resnet: must be one of squeeze, alex, vgg"),
        ({"batch": 0}, "eval.lpips_batch=0"),
        ({"device": "tpu"}, "device=tpu"),
        ({"backbone": "/none/a.pth"}, "eval.lpips_backbone=/none/a.pth: no such file"),
        ({"heads": "/none/a.pth"}, "eval.lpips_heads=/none/a.pth: no such file"),
        ({"heads": str(HEADS / "alex.pth")}, "not the heads of this net"),
        ({"net": "alex"}, "torchvision's alexnet"),
        ({"backbone": "trap.pth"}, "more than tensors"),
        ({"backbone": "cut.pth"}, "eval.lpips_backbone="),
        ({"heads": "wide.pth"}, "not weights of this net"),
    ],
)
def test_wrong_options_and_files_are_refused(options, says, backbone, tmp_path):
    torch.save({"features.0.weight": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    torch.save({f"lin{i}.model.1.weight": torch.zeros(1, 3, 1, 1) for i in range(7)}, tmp_path / "wide.pth")
    given = {k: str(tmp_path / v) if (tmp_path / str(v)).is_file() else v for k, v in options.items()}
    with pytest.raises(UserError, match=says) as caught:
        Lpips(**{"backbone": backbone, "device": "cpu", **given})
    assert not isinstance(caught.value, Unavailable) and "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists(), "nothing was unpickled"


def test_a_failed_download_is_unavailable(monkeypatch):
    download_options: dict[str, Any] = {}

    def refuse(url: str, **options: Any) -> None:
        download_options.update(options)
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(Unavailable, match="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth") as caught:
        Lpips(device="cpu")
    assert str(caught.value).startswith("eval.lpips_backbone: ") and "set eval.lpips_backbone=PATH" in str(caught.value)
    assert download_options["weights_only"] is True and download_options["check_hash"] is True


def test_a_package_that_is_missing_is_unavailable(backbone, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lpips", None)
    with pytest.raises(Unavailable, match="pip install 'lpips"):
        Lpips("squeeze", backbone, device="cpu")


@pytest.mark.parametrize(
    ("image", "reference", "says"),
    [
        (photo(0) / 255, photo(1), "image 0: is float64"),
        (photo(0), photo(1).astype(np.float32), "reference 0: is float32"),
        (photo(0)[..., 0], photo(1), "image 0: has shape"),
        (photo(0, 48, 48), photo(1), "differ in size"),
    ],
)
def test_wrong_images_are_refused(metric, image, reference, says):
    with pytest.raises(UserError, match=says):
        metric.scores([image], [reference])


def test_counts_that_differ_are_named(metric):
    with pytest.raises(ValueError, match="shorter"):
        metric.scores([photo(0)], [])
    with pytest.raises(ValueError, match="2 images for 1 references"):
        metric([photo(0)] * 2, [photo(0)])


def test_broken_weights_never_give_a_figure(tmp_path):
    state = layers(package("squeeze"))
    state["features.0.bias"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(UserError, match="NaN"):
        Lpips("squeeze", str(tmp_path / "nan.pth"), device="cpu").scores([photo(0)], [photo(1)])
