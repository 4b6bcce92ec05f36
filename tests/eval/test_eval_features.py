"""Feature networks: clean-fid's Inception driven with a small TorchScript module, SqueezeNet, and the embedded one."""

from __future__ import annotations

import hashlib
import io
import sys
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from eval.features import NAMES, Network, load
from eval.features import train_embedded as training
from eval.features.base import resized, state_checksum
from eval.features.distances import distance_figures
from eval.features.embedded import WEIGHTS, Embedded
from eval.features.inception import FILE, Inception
from eval.features.squeezenet import SqueezeNet
from eval.images import ImageSet
from eval.metrics.distances import frechet, kid, moments
from eval.metrics.influence import frechet_interval
from eval.unavailable import Unavailable
from ragaf_exp.core.errors import UserError


class Tiny(nn.Module):
    """Called as clean-fid calls its Inception: .layers(x in [-1,1]), or (x in 0 to 255, return_features=True)."""

    def __init__(self, width: int = 2048):
        super().__init__()
        parts = [nn.Conv2d(3, 8, 7, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, width)]
        self.layers = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        x = nn.functional.interpolate(x, size=[299, 299], mode="bilinear", align_corners=False)
        return self.layers((x - 128) / 128)


def save_script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(module.eval()), path)
    return path


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    pytest.importorskip("cleanfid")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return save_script(Tiny(), tmp_path_factory.mktemp("inception") / "any-name.pt")


@pytest.fixture(scope="module")
def squeezenet(shared_data) -> Path:
    pytest.importorskip("torchvision")
    path = shared_data.parent / "weights" / "squeezenet11" / "squeezenet1_1_torchvision_fp16.pth"
    if not path.is_file():
        pytest.skip(f"no SqueezeNet weights: {path} is absent")
    return path


@pytest.fixture(scope="module")
def photos(shared_data) -> list[np.ndarray]:
    sets = [ImageSet.folder(shared_data / name, size=96) for name in ("sketchy/photo", "coco_mini/val2017")]
    return [*sets[0][::4], *sets[1][:35]]


def pictures(count: int, side: int = 48, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (side, side)) for _ in range(count)]


def distance(network: Network, first: list[np.ndarray], second: list[np.ndarray]) -> float:
    return frechet(*moments(network(first)), *moments(network(second)))


# --- clean-fid's Inception


@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_features_are_clean_fids_own_to_the_bit(mode, script, tmp_path):
    """Its whole path from files, on the same files: reading, resizing, normalising and the wrapper."""
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W

    for i, picture in enumerate(pictures(5, 60)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / FILE).write_bytes(script.read_bytes())
    model = InceptionV3W(str(tmp_path / "net"), download=False, resize_inside=mode == "legacy_tensorflow")
    theirs = get_folder_features(str(tmp_path), model, num_workers=0, batch_size=5, device=torch.device("cpu"),
                                 mode=mode, verbose=False)  # fmt: skip
    network = Inception(str(script), mode, "cpu")
    features = network(list(ImageSet.folder(tmp_path)))
    np.testing.assert_array_equal(features, theirs)
    assert features.shape == (5, 2048) and features.dtype == np.float32
    assert network.facts() == {"network": "inception", "dim": 2048, "resize": f"clean-fid {mode}",
                               "network_checksum": hashlib.sha256(script.read_bytes()).hexdigest()}  # fmt: skip


def test_modes_differ_and_unknown_ones_are_refused(script):
    shown = pictures(2, 90)
    one, other = (Inception(str(script), mode, "cpu")(shown) for mode in ("clean", "legacy_tensorflow"))
    assert np.abs(one - other).max() > 1e-4
    with pytest.raises(UserError, match="eval.resize=legacy_pytorch: must be one of clean, legacy_tensorflow"):
        load("inception", inception=str(script), resize="legacy_pytorch")


def test_pictures_of_different_sizes_go_through_every_mode(script):
    shown = [*pictures(2, 40), *pictures(2, 56)]
    for mode in ("clean", "legacy_tensorflow"):
        network = Inception(str(script), mode, "cpu")
        np.testing.assert_allclose(network(shown)[2], network(shown[2:3])[0], atol=1e-5)


def test_a_folder_with_the_file_may_be_named(script, tmp_path):
    (tmp_path / FILE).write_bytes(script.read_bytes())
    shown = pictures(1)
    np.testing.assert_array_equal(Inception(str(tmp_path))(shown), Inception(str(script))(shown))


def test_files_that_are_no_inception_are_refused_in_one_line(script, tmp_path):
    torch.save(Tiny().state_dict(), tmp_path / "state.pth")
    (tmp_path / "text.pt").write_text("not found")
    (tmp_path / "cut.pt").write_bytes(script.read_bytes()[:-3000])
    save_script(nn.Conv2d(3, 4, 1), tmp_path / "other.pt")
    save_script(Tiny(2048 + 7), tmp_path / "wide.pt")
    for name in ("state.pth", "text.pt", "cut.pt", "other.pt", "wide.pt"):
        refused_by(lambda name=name: Inception(str(tmp_path / name)), "eval.inception=", name, FILE)
    refused_by(lambda: Inception(str(tmp_path / "missing.pt")), "missing.pt: no such file")


def refused_by(make, *says: str) -> None:
    """The message of a user's mistake, which must not be reported as unavailable weights."""
    with pytest.raises(UserError) as refusal:
        make()
    line = str(refusal.value)
    assert not isinstance(refusal.value, Unavailable) and "\n" not in line and len(line) < 500
    assert all(text in line for text in says), line


# --- downloads


class Server:
    """Replaces urllib's server: returns a file, a part of it, or nothing."""

    def __init__(self, content: bytes | None):
        self.content, self.requests = content, 0

    def __call__(self, url, *args, **kwargs) -> io.BytesIO:
        self.requests += 1
        if self.content is None:
            raise urllib.error.URLError("no route to host")
        return io.BytesIO(self.content)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub" / "checkpoints"


def test_inception_is_downloaded_once_by_clean_fid(script, hub, monkeypatch):
    server = Server(script.read_bytes())
    monkeypatch.setattr(urllib.request, "urlopen", server)
    shown = pictures(2)
    np.testing.assert_array_equal(load("inception")(shown), Inception(str(script))(shown))
    assert [path.name for path in hub.iterdir()] == [FILE]
    load("inception")
    assert server.requests == 1


@pytest.mark.parametrize("share", [None, 0.0, 0.5], ids=["no network", "nothing", "cut"])
def test_a_failed_download_is_unavailable_and_leaves_nothing(share, script, hub, monkeypatch):
    whole = script.read_bytes()
    server = Server(None if share is None else whole[: int(share * len(whole))])
    monkeypatch.setattr(urllib.request, "urlopen", server)
    for _ in range(2):
        with pytest.raises(Unavailable, match="eval.inception: .*could not be downloaded.*eval.inception=PATH") as error:
            load("inception")
    assert server.requests == 2 and not list(hub.iterdir()) and "\n" not in str(error.value)


def test_without_clean_fid_it_is_unavailable(script, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "cleanfid"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "cleanfid", None)
    with pytest.raises(Unavailable, match="pip install 'clean-fid"):
        Inception(str(script))


def test_squeezenet_without_a_network_is_unavailable(hub, monkeypatch):
    pytest.importorskip("torchvision")
    monkeypatch.setattr("torch.hub.urlopen", Server(None))
    with pytest.raises(Unavailable, match="eval.squeezenet: .*no route to host.*eval.squeezenet=PATH"):
        load("squeezenet")


# --- SqueezeNet


def test_squeezenet_is_torchvisions(squeezenet, photos):
    """Compared with torchvision's own transform and module, on pictures of the network's size."""
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    shown = [cv2.resize(p, (224, 224)) for p in photos[:3]]
    with torch.random.fork_rng():
        model = squeezenet1_1(weights=None)
    model.load_state_dict({k: v.float() for k, v in torch.load(squeezenet, weights_only=True).items()})
    transform = SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms(resize_size=224)
    with torch.inference_mode():
        batch = torch.stack([transform(Image.fromarray(p)) for p in shown])
        expected = model.eval().features(batch).mean((2, 3)).numpy()
    features = SqueezeNet(str(squeezenet), "cpu")(shown)
    assert features.shape == (3, 512)
    np.testing.assert_allclose(features, expected, atol=1e-3 * expected.max())


def test_squeezenet_knows_its_weights_in_any_file(squeezenet, tmp_path):
    state = torch.load(squeezenet, weights_only=True)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "s.safetensors")
    first, second = SqueezeNet(str(squeezenet)), SqueezeNet(str(tmp_path / "s.safetensors"))
    assert first.checksum == second.checksum
    np.testing.assert_array_equal(first(pictures(2)), second(pictures(2)))
    state["features.0.weight"] = state["features.0.weight"] * 2
    torch.save(state, tmp_path / "other.pth")
    assert SqueezeNet(str(tmp_path / "other.pth")).checksum != first.checksum


def test_squeezenet_refuses_other_files(tmp_path):
    pytest.importorskip("torchvision")
    torch.save({"state": object()}, tmp_path / "pickle.pth")
    torch.save({"features.0.weight": torch.ones(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.safetensors").write_text("no")
    for name, says in {"pickle.pth": "more than tensors", "other.pth": "not weights of SqueezeNet", "none": "no such file",
                       "list.pth": "holds no network's weights", "text.safetensors": "can't be read"}.items():  # fmt: skip
        refused_by(lambda name=name: load("squeezenet", squeezenet=str(tmp_path / name)), "eval.squeezenet=", says)


# --- what all of them are


@pytest.fixture(params=NAMES)
def network(request) -> Network:
    files = {"inception": "script", "squeezenet": "squeezenet"}
    given = {request.param: str(request.getfixturevalue(files[request.param]))} if request.param in files else {}
    return load(request.param, device="cpu", **given)


def test_features_do_not_depend_on_the_batch(network):
    shown = [*pictures(5, 48), *pictures(2, 70, seed=1)]
    whole = network(shown)
    assert whole.shape == (7, network.dim) and whole.dtype == np.float32
    parts = np.concatenate([network(shown[i : i + 2]) for i in range(0, 7, 2)])
    np.testing.assert_allclose(parts, whole, atol=1e-5 * np.abs(whole).max())
    assert network([]).shape == (0, network.dim)


def test_networks_leave_the_generator_alone(network):
    state = torch.get_rng_state()
    load("embedded")
    network(pictures(1))
    assert torch.equal(state, torch.get_rng_state())


def test_other_ranges_are_refused(network):
    for wrong in (np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8)):
        with pytest.raises(UserError, match="image 1"):
            network([pictures(1)[0], wrong])


def test_nan_features_are_named(network, monkeypatch):
    monkeypatch.setattr(network, "embed", lambda batch: torch.full((len(batch), network.dim), torch.nan))
    with pytest.raises(UserError, match=f"{network.name}: features of 2 images are NaN"):
        network(pictures(2))


def test_unknown_names_and_devices(monkeypatch):
    with pytest.raises(UserError, match="'vgg'; known are inception, squeezenet, embedded"):
        load("vgg")
    with pytest.raises(UserError, match="device=tpu"):
        load("embedded", device="tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA"):
        load("embedded", device="cuda")


def test_cuda_agrees_with_the_processor(squeezenet, photos):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for name in ("embedded", "squeezenet"):
        one, other = (load(name, squeezenet=str(squeezenet), device=d)(photos[:8]) for d in ("cpu", "cuda"))
        np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(one).max())


def test_resizing_is_clean_fids():
    make = pytest.importorskip("cleanfid.resize").make_resizer
    for side in (20, 64, 100):
        picture = pictures(1, 50)[0]
        np.testing.assert_array_equal(resized(picture, side), make("PIL", False, "bicubic", (side, side))(picture))
    np.testing.assert_array_equal(resized(picture, 50), picture)


# --- monotone under damage


def blur(picture: np.ndarray, level: int) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), (0.5, 1, 2, 4)[level])


def noise(picture: np.ndarray, level: int) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, (8, 16, 32, 64)[level], picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def tint(picture: np.ndarray, level: int) -> np.ndarray:
    by = (10, 20, 40, 80)[level]
    return np.clip(picture + np.array([by, 0, -by]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("damage", [blur, noise, tint], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["embedded", "squeezenet"])
def test_growing_damage_of_real_photos_grows_the_distance(name, damage, photos, request):
    network = load(name, squeezenet=str(request.getfixturevalue("squeezenet")), device="cpu")
    photos = photos if name == "embedded" else photos[::4]
    distances = [distance(network, photos, [damage(p, level) for p in photos]) for level in range(4)]
    assert distances[0] > 0 and all(b > 1.2 * a for a, b in zip(distances, distances[1:], strict=False)), distances


# --- the embedded network


def test_embedded_ships_small_and_whole():
    assert WEIGHTS.stat().st_size < 300_000
    state = load_file(WEIGHTS)
    assert {value.dtype for value in state.values()} == {torch.float16, torch.int64}
    assert load("embedded").checksum == state_checksum(state)


def test_embedded_distinguishes_scenes_from_other_pictures():
    from ragaf_exp.data.sources.scenes import Scenes

    test = Scenes(seed=1).split("test")
    scenes = [test[i].image for i in range(200)]
    network = Embedded("cpu")
    alike = distance(network, scenes[:100], scenes[100:])
    swapped = [scene[..., ::-1].copy() for scene in scenes[100:]]
    assert distance(network, scenes[:100], swapped) > 2 * alike
    assert distance(network, scenes[:100], [blur(s, 2) for s in scenes[100:]]) > 2 * alike


def test_embedded_is_trained_again_to_the_byte(cli, tmp_path):
    contents = set()
    for name in "ab":
        torch.manual_seed(len(contents))  # the generator of the process must not matter
        status, out, err = cli(training.main, "steps=4", "scenes=64", f"out={tmp_path / name}")
        assert status == 0 and "final loss" in out, err
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1
    assert Embedded("cpu", tmp_path / "a")(pictures(2)).shape == (2, 192)
    cli(training.main, "steps=4", "scenes=64", "seed=1", f"out={tmp_path / 'c'}")
    assert (tmp_path / "c").read_bytes() not in contents


@pytest.mark.long
def test_training_learns():
    known = [training.described(item) for item in scenes_of(200)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        losses = training.fit(training.Trunk(), known, 60, torch.Generator().manual_seed(0))
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])


def scenes_of(count: int) -> list:
    from ragaf_exp.data.sources.scenes import Scenes

    split = Scenes(train=count).split("train")
    return [split[i] for i in range(count)]


def test_scenes_are_described_as_they_are():
    from ragaf_exp.data.sources.palette import BACKGROUND_NAMES, OBJECT_NAMES
    from ragaf_exp.data.sources.shapes import SHAPE_NAMES

    for item in scenes_of(30):
        description = training.described(item)
        pairs = {(OBJECT_NAMES[i], SHAPE_NAMES[j]) for i, j in description.pairs.view(8, 8).nonzero().tolist()}
        assert pairs == {(thing.colour, thing.shape) for thing in item.objects}
        assert description.count == len(item.objects) - 1
        assert f"{BACKGROUND_NAMES[description.ground]} background" in item.caption


def test_damage_for_training_is_as_strong_as_it_says():
    shown = torch.rand(64, 3, 32, 32) * 2 - 1
    spoilt, levels = training.damaged(shown, torch.Generator().manual_seed(0))
    change = (spoilt - shown).abs().mean((1, 2, 3))
    assert (levels.min(), levels.max()) >= (0, 0) and levels.max() <= 1 and not (levels.prod(1) > 0).any()
    untouched = levels.sum(1) == 0
    assert untouched.any() and change[untouched].max() == 0 and spoilt.abs().max() <= 1
    for kind in (0, 1):
        hit = levels[:, kind] > 0.3
        assert hit.any() and change[hit].min() > 0.02
    one = training.blurred(shown[:2], torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(one[0], shown[0], atol=1e-5, rtol=0)
    expected = cv2.GaussianBlur(shown[1].permute(1, 2, 0).numpy(), (13, 13), 2.0, borderType=cv2.BORDER_REPLICATE)
    torch.testing.assert_close(one[1], torch.from_numpy(expected).permute(2, 0, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("argument", ["steps=0", "scenes=0", "seed=-1", "step=3"])
def test_training_refuses(argument, refused, tmp_path):
    refused(training.main, argument, f"out={tmp_path / 'x'}", says=(argument.split("=")[0],))


# --- figures


def test_figures_name_network_weights_and_reference(tmp_path):
    first, second = (ImageSet.arrays(pictures(30, 16, seed), name=f"set {seed}") for seed in (0, 1))
    network = load("embedded", device="cpu")
    figures = distance_figures(first, second, network, tmp_path, weights="ema")
    assert figures.keys() == {"fd_embedded"}
    entry = figures["fd_embedded"]
    expected = frechet_interval(network(list(first)), network(list(second)))
    assert (entry["value"], *entry["ci95"]) == pytest.approx(expected, rel=1e-6)
    assert "30 images: the distance is biased" in entry["warning"] and "singular" in entry["warning"]
    known = {"n": 30, "n_reference": 30, "higher_is_better": False, "network": "embedded", "resize": "bicubic 64",
             "network_checksum": network.checksum, "reference_checksum": second.checksum, "weights": "ema"}  # fmt: skip
    assert known.items() <= entry.items()


def test_inception_gives_fid_and_kid(script, tmp_path):
    first, second = (ImageSet.arrays(pictures(12, 16, seed)) for seed in (0, 1))
    network = load("inception", inception=str(script), device="cpu")
    figures = distance_figures(first, second, network, tmp_path, kid_subsets=20, seed=3)
    assert figures.keys() == {"fid", "kid"} and figures["kid"]["resize"] == "clean-fid clean"
    expected = kid(network(list(first)), network(list(second)), 20, 1000, 3)
    assert (figures["kid"]["value"], *figures["kid"]["ci95"]) == pytest.approx(expected, rel=1e-4)
    assert (figures["kid"]["subsets"], figures["kid"]["subset_size"]) == (20, 6) and "warning" not in figures["kid"]


def test_too_few_images_are_refused(tmp_path):
    first, second = ImageSet.arrays(pictures(3), name="samples"), ImageSet.arrays(pictures(9))
    with pytest.raises(UserError, match="samples: 3 images"):
        distance_figures(first, second, load("embedded"), tmp_path)
