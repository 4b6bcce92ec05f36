"""Codecs that were trained: scaling, tiles and slices, and what TAESD's real weights keep of photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from tiny_sd import save_sd, save_taesd

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.codecs.autoencoder import KL, Taesd
from ragaf_exp.models.codecs.pixel import Pixel


@pytest.fixture(scope="module")
def sd(tmp_path_factory) -> Path:
    return save_sd(tmp_path_factory.mktemp("sd") / "sd")


def photos(folder: Path, count: int, side: int) -> torch.Tensor:
    """(count,3,side,side) in [-1,1], each the middle of a photograph."""
    images = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".jpeg", ".png"))[: 4 * count]:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None or min(image.shape[:2]) < side:
            continue
        h, w = image.shape[:2]
        s = min(h, w)
        image = image[(h - s) // 2 : (h + s) // 2, (w - s) // 2 : (w + s) // 2, ::-1]
        images.append(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(images[:count])).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_taesds_real_weights_keep_photographs(shared_data):
    weights = next((p for p in (shared_data / "weights/tae", shared_data.parent / "weights/tae") if p.is_dir()), None)
    if weights is None:
        pytest.skip("TAESD's weights are not next to the test data")
    codec, images = Taesd(str(weights)), photos(shared_data / "coco_mini", 4, 256)
    assert len(images) == 4
    latent = codec.encode(images)
    assert latent.shape == (4, 4, 32, 32) and 0.5 < float(latent.std()) < 1.5, "scaled for diffusion"
    error = (codec.decode(latent) - images).square().mean(dim=(1, 2, 3))
    assert float((10 * torch.log10(4 / error)).mean()) >= 24


def test_scale_and_shift_are_of_the_models_config(sd):
    codec, plain = KL(str(sd)), AutoencoderKL.from_pretrained(sd, subfolder="vae")
    assert (codec.scale, codec.shift, codec.channels, codec.downscale) == (0.5, 0.1, 4, 8)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        z = plain.encode(image).latent_dist.mode()
        shown = plain.decode(z).sample
    torch.testing.assert_close(codec.encode(image), (z - 0.1) * 0.5, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(codec.decode(codec.encode(image)), shown.clamp(-1, 1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["taesd", "kl"])
def test_slices_change_nothing_and_tiles_are_used(kind, sd, tmp_path):
    make = (lambda **k: KL(str(sd), **k)) if kind == "kl" else (lambda **k: Taesd(str(taesd), **k))
    taesd = save_taesd(tmp_path / "taesd") if kind == "taesd" else None
    image = torch.rand(2, 3, 96, 96) * 2 - 1
    whole, sliced, tiled = make(), make(slicing=True), make(tiling=64)
    latent = whole.encode(image)
    torch.testing.assert_close(sliced.encode(image), latent)
    torch.testing.assert_close(sliced.decode(latent), whole.decode(latent))
    large = make(tiling=128)
    torch.testing.assert_close(large.encode(image), latent)
    assert tiled.encode(image).shape == latent.shape and tiled.decode(latent).shape == image.shape
    assert not torch.equal(tiled.decode(latent), whole.decode(latent))


def test_a_codec_is_frozen_and_computes_alike_in_any_precision(sd):
    codec = KL(str(sd)).train()
    assert not codec.training and not any(p.requires_grad for p in codec.parameters())
    image = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(image), KL(str(sd)).encode(image))


def test_fingerprints_distinguish_codecs(sd, tmp_path):
    other = save_sd(tmp_path / "other", seed=1)
    codecs = [KL(str(sd)), KL(str(other)), Pixel(4), Pixel(2), Taesd(str(save_taesd(tmp_path / "t")))]
    assert len({codec.fingerprint for codec in codecs}) == 5
    assert KL(str(sd)).fingerprint == codecs[0].fingerprint and Pixel(4).fingerprint == codecs[2].fingerprint


def test_missing_and_damaged_weights_are_one_line(sd, tmp_path):
    for part in ("encoder", "decoder"):
        (tmp_path / f"taesd_{part}.safetensors").write_bytes(b"no tensors")
    for call in (lambda: Taesd(str(tmp_path)), lambda: Taesd(str(tmp_path / "absent")), lambda: KL(str(tmp_path)),
                 lambda: KL(""), lambda: KL(str(sd), tiling=12), lambda: Taesd(weights="some")):  # fmt: skip
        with pytest.raises(UserError, match=r"codec\.") as refusal:
            call()
        assert "\n" not in str(refusal.value)
