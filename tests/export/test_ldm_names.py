"""Names in the original layout, at Stable Diffusion's sizes on the meta device: one-to-one, and as diffusers reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_controlnet_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)

from ragaf_exp.models.loading import ldm
from ragaf_exp.models.loading.single_file import SD1, SD2, VAE

COUNTS = json.loads((Path(__file__).parent / "key_counts.json").read_text())


def unet(config: dict) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(**config)


def controlnet(config: dict) -> ControlNetModel:
    with torch.device("meta"):
        return ControlNetModel.from_unet(unet(config), load_weights_from_unet=False)


def autoencoder() -> AutoencoderKL:
    with torch.device("meta"):
        return AutoencoderKL(**VAE)


NETWORKS = {
    "unet sd1": (lambda: unet(SD1), ldm.unet_names, ldm.UNET, convert_ldm_unet_checkpoint),
    "unet sd2": (lambda: unet(SD2), ldm.unet_names, ldm.UNET, convert_ldm_unet_checkpoint),
    "controlnet sd1": (lambda: controlnet(SD1), ldm.controlnet_names, ldm.CONTROLNET, convert_controlnet_checkpoint),
    "controlnet sd2": (lambda: controlnet(SD2), ldm.controlnet_names, ldm.CONTROLNET, convert_controlnet_checkpoint),
    "vae": (autoencoder, ldm.autoencoder_names, ldm.VAE, convert_ldm_vae_checkpoint),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_diffusers_own_converter_returns_every_weight_to_its_name(name):
    make, names, prefix, convert = NETWORKS[name]
    network = make()
    mapped = names(network.state_dict().keys())
    assert len(set(mapped.values())) == len(mapped) == len(network.state_dict()), "one-to-one"
    tags = {key: torch.tensor([float(i)]) for i, key in enumerate(mapped)}
    file = {f"{prefix}{mapped[key]}": tag[:, None, None, None] if ldm.is_projection(mapped[key]) else tag
            for key, tag in tags.items()}  # fmt: skip
    restored = convert(file, config=dict(network.config))
    assert restored.keys() == tags.keys()
    assert all(restored[key].flatten().tolist() == tag.tolist() for key, tag in tags.items())


@pytest.mark.parametrize("name", NETWORKS)
def test_key_lists_are_those_of_published_files(name):
    """Counts and marks of the published v1-5-pruned-emaonly, control_v11p_sd15 and v2-1 files' layouts."""
    make, names, _, _ = NETWORKS[name]
    network = make()
    mapped = names(network.state_dict().keys())
    assert len(mapped) == COUNTS[name]["count"]
    for key, shape in COUNTS[name]["marks"].items():
        inverse = {new: old for old, new in mapped.items()}
        assert list(network.state_dict()[inverse[key]].shape) == shape, key
