"""Editing transformers compute the same numbers as the family's pipeline, from the source image of a task."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux import pipeline_flux_fill
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from editing_runs import CAPTIONS, EDITORS, SIZE, built, config, save_all
from family_runs import pipeline_of, velocity_at
from PIL import Image

from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.tensors import to_uint8
from ragaf_exp.models.backbones.pretrained_transformer import pack
from ragaf_exp.models.inputs import ALL

READ = 84  # side of the image that Qwen2.5-VL reads by the plus pipeline in these tests


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return save_all(tmp_path_factory.mktemp("editors"))


@pytest.fixture(autouse=True)
def pipelines_at_our_size(monkeypatch):
    """The pipelines resize to a megapixel, and Fill's samples the posterior of the autoencoder."""
    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda area, ratio: (SIZE, SIZE, None))
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", SIZE**2)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", READ**2)
    monkeypatch.setattr(pipeline_flux_fill, "retrieve_latents", lambda encoded, **kwargs: encoded.latent_dist.mode())


def call_of(family: str, model: Any, batch: Any, item: int, guidance: float, tokens: int) -> dict[str, Any]:
    """The arguments of the family's pipeline for one item of a batch. guidance: true guidance scale, 1 = none."""
    source = model.inputs.source(batch, ALL)
    call = {"prompt": CAPTIONS[item], "image": Image.fromarray(to_uint8(source.image)[item]), "height": SIZE,
            "width": SIZE, "max_sequence_length": tokens}  # fmt: skip
    true = {"true_cfg_scale": guidance, "negative_prompt": "" if guidance > 1 else None}
    mask = Image.fromarray((source.hole[item, 0] > 0).numpy())
    return call | {
        "flux_kontext": {"guidance_scale": 3.5, "max_area": SIZE**2, "_auto_resize": False, **true},
        "flux_fill": {"guidance_scale": 30.0, "mask_image": mask}, "qwen_image_edit": true, "qwen_image_edit_plus": true,
    }[family]  # fmt: skip


@pytest.mark.parametrize("family", EDITORS)
def test_a_denoiser_call_equals_the_pipelines(family, tiny, folders, tmp_path):
    """The region path, the hint and the task's layer start at zero: stage 2 predicts what the pipeline's call predicts."""
    cfg = config(tiny, family, folders[family], tmp_path, "task=inpaint", *read(family))
    _, model, batch = built(cfg, REFINE, tmp_path)
    x_t, t = noise(1), torch.tensor([900.0, 300.0])
    theirs = pipeline_of(folders[family])
    with torch.no_grad():
        ours = model.denoise(x_t, t, model.condition(batch)).value
        for item in range(2):
            call = call_of(family, model, batch, item, 1.0, cfg.text.max_tokens)
            wanted = velocity_of(theirs, call, x_t[item : item + 1], t[item])
            torch.testing.assert_close(ours[item : item + 1], wanted, rtol=1e-5, atol=1e-5)
        other = changed(batch, model)
        assert (model.denoise(x_t, t, model.condition(other)).value - ours).abs().amax((1, 2, 3)).min() > 1e-3


def read(family: str) -> list[str]:
    return [f"text.image_side={READ}"] if family == "qwen_image_edit_plus" else []


def noise(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(seed))


def changed(batch: Any, model: Any) -> Any:
    """The batch with another image around the hole."""
    given = batch.conditions["given"]
    return type(batch)(**{**vars(batch), "conditions": {**batch.conditions, "given": given.flip(3) * 0.5}})


def velocity_of(pipeline: Any, call: dict[str, Any], x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The velocity (1,C,h,w) that the pipeline computes at timestep t, from the step that its scheduler then takes."""
    velocity = velocity_at(pipeline, t, partial(pipeline, latents=pack(x_t, 2), num_inference_steps=1, **call))
    maps = pipeline._unpack_latents(velocity, SIZE, SIZE, 8)
    return maps[:, :, 0] if maps.ndim == 5 else maps


GUIDED = [(family, scale) for family in EDITORS for scale in (1.0, 4.0) if (family, scale) != ("flux_fill", 4.0)]


@pytest.mark.parametrize(("family", "guidance"), GUIDED)
def test_our_sampling_loop_gives_the_pipelines_image(family, guidance, tiny, folders, tmp_path):
    """Before the pixels outside the hole are restored. Fill's pipeline has no true guidance."""
    sampler = [f"sampler.guidance={guidance}", "sampler.steps=3", "sampler.scheduler=euler"]
    cfg = config(tiny, family, folders[family], tmp_path, "task=inpaint", *sampler, *read(family))
    parts, model, batch = built(cfg, COARSE, tmp_path)
    latent, _ = parts.sampler.sample(model, batch, noise(2))
    ours, theirs = (parts.codec.decode(latent) + 1) / 2, pipeline_of(folders[family])
    for item in range(2):
        call = call_of(family, model, batch, item, guidance, cfg.text.max_tokens) | {"output_type": "pt"}
        image = theirs(latents=pack(noise(2)[item : item + 1], 2), num_inference_steps=3, **call).images
        torch.testing.assert_close(ours[item : item + 1], image, rtol=1e-4, atol=1e-4)
    assert ours.std() > 0.01
