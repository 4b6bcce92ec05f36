"""Pretrained transformers by diffusers' classes compute the same numbers as the family's pipeline."""

from __future__ import annotations

from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from family_runs import CAPTIONS, EXTRA, FAMILIES, SHORT, built, config, pipeline_of, save_all, velocity_at

from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.models.backbones.pretrained_transformer import pack, unpack

MAPS = ("sd3", "z_image")  # families whose pipelines take latents as maps; others take them as tokens
UNPACKED = ("flux2",)  # families whose pipelines take maps and compute on tokens of one cell


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return save_all(tmp_path_factory.mktemp("families"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_denoiser_call_equals_the_pipelines(family, tiny, folders, tmp_path):
    """The region path and the hint start at zero: stage 2 predicts what diffusers' transformer predicts."""
    _, model, batch = built(config(tiny, family, folders[family], tmp_path), REFINE, tmp_path)
    x_t, t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([900.0, 300.0])
    theirs = pipeline_of(folders[family])
    velocities: dict[str, Any] = {}
    for which in range(2):  # what the pipeline passes to its transformer, for each item's caption and timestep
        with torch.no_grad():
            predicted = by_pipeline(family, theirs, CAPTIONS[which], x_t[which : which + 1], t[which])
            ours = model.denoise(x_t, t, model.condition(batch)).value[which : which + 1]
        torch.testing.assert_close(ours, predicted, rtol=1e-5, atol=1e-5)
        velocities[CAPTIONS[which]] = predicted
    assert (velocities[CAPTIONS[0]] - velocities[CAPTIONS[1]]).abs().max() > 1e-3


def by_pipeline(family: str, pipeline: Any, caption: str, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The velocity that the pipeline computes at timestep t, from the step that its scheduler then takes."""
    call = partial(pipeline, prompt=caption, latents=arranged(family, x_t), **call_of(family))
    return unarranged(family, pipeline, velocity_at(pipeline, t, call), x_t)


def arranged(family: str, latents: torch.Tensor) -> torch.Tensor:
    """Latents (B,C,h,w) as the pipeline takes them."""
    return latents if family in (*MAPS, *UNPACKED) else pack(latents, 2)


def unarranged(family: str, pipeline: Any, velocity: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The pipeline's velocity as (B,C,h,w), by its own method."""
    if family in MAPS:
        return velocity
    if family in UNPACKED:
        return unpack(velocity, (like.shape[2], like.shape[3]), 1)
    maps = pipeline._unpack_latents(velocity, 8 * like.shape[2], 8 * like.shape[3], 8)
    return maps[:, :, 0] if maps.ndim == 5 else maps


def call_of(family: str, steps: int = 1, guidance: float = 1.0) -> dict[str, Any]:
    """The arguments of the pipelines that correspond to our config at 32x32. guidance: true guidance scale, 1 = none."""
    tokens = int(dict(word.split("=") for word in [*SHORT, *EXTRA.get(family, [])])["text.max_tokens"])
    common = {"height": 32, "width": 32, "max_sequence_length": tokens, "num_inference_steps": steps}
    true = {"true_cfg_scale": guidance, "negative_prompt": [""] * 2 if guidance > 1 else None}
    return common | {
        "flux": {"guidance_scale": 3.5, **true}, "sd3": {"guidance_scale": guidance},
        "qwen_image": true, "z_image": {"guidance_scale": guidance - 1},  # its scale counts from 0
        "flux2": {"guidance_scale": guidance},
    }[family]  # fmt: skip


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_our_sampling_loop_draws_the_pipelines_image(family, guidance, tiny, folders, tmp_path):
    sampler = [f"sampler.guidance={guidance}", "sampler.steps=4", "sampler.scheduler=euler"]
    cfg = config(tiny, family, folders[family], tmp_path, *sampler)
    parts, model, batch = built(cfg, COARSE, tmp_path)
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    latent, _ = parts.sampler.sample(model, batch, noise)
    ours = (parts.codec.decode(latent) + 1) / 2
    call = call_of(family, 4, guidance) | {"output_type": "pt"}
    theirs = pipeline_of(folders[family])(prompt=list(CAPTIONS), latents=arranged(family, noise), **call).images
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert ours.std() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_are_those_of_the_pipelines_autoencoder(family, tiny, folders, tmp_path):
    parts, _, batch = built(config(tiny, family, folders[family], tmp_path), COARSE, tmp_path)
    vae, image = pipeline_of(folders[family]).vae, batch.image
    video = family == "qwen_image"
    with torch.no_grad():
        mode = vae.encode(image[:, :, None] if video else image).latent_dist.mode()
        again = vae.decode(mode).sample.clamp(-1, 1)
    mode, again = (mode[:, :, 0], again[:, :, 0]) if video else (mode, again)
    latent, c = parts.codec.encode(image), vae.config
    if family == "flux2":
        mode = pipeline_of(folders[family])._patchify_latents(mode)
        shift, scale = vae.bn.running_mean, (vae.bn.running_var + c.batch_norm_eps).sqrt()
    else:
        shift, scale = (c.latents_mean, c.latents_std) if video else (c.shift_factor, 1 / c.scaling_factor)
    shift, scale = (torch.as_tensor(x).reshape(-1, 1, 1) for x in (shift, scale))
    torch.testing.assert_close(latent, (mode - shift) / scale)
    torch.testing.assert_close(parts.codec.decode(latent), again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_spans_name_the_words_of_the_tokens(family, tiny, folders, tmp_path):
    _, model, _ = built(config(tiny, family, folders[family], tmp_path), COARSE, tmp_path)
    text, (caption, _) = model.text(CAPTIONS), CAPTIONS
    spans = model.text.token_spans(caption)
    assert len(spans) == text.tokens.shape[1] == text.mask.shape[1]
    words = [caption[low:high] for low, high in spans if high > low]
    assert "".join(words).startswith("aredcircleleftofabluestar") and " blue" not in words and "blue" in words
    assert not any(high > low for (low, high), there in zip(spans, text.mask[0].tolist(), strict=True) if not there)


def embedded(backbone: Any, x_t: torch.Tensor, text: Any) -> torch.Tensor:
    """The embedded image tokens (B,L,C) of x_t."""
    outputs: list[torch.Tensor] = []
    handle = backbone.embedder().register_forward_hook(lambda module, args, output: outputs.append(output))
    backbone(x_t, torch.full((2,), 500.0), text, {})
    handle.remove()
    count = x_t.shape[2] * x_t.shape[3] // backbone.stride**2
    return outputs[0].reshape(2, -1, backbone.width)[:, :count]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_residuals_act_where_their_names_say(family, tiny, folders, tmp_path):
    _, model, batch = built(config(tiny, family, folders[family], tmp_path), COARSE, tmp_path)
    backbone, text, t = model.backbone, model.text(CAPTIONS), torch.full((2,), 500.0)
    side = backbone.stride
    x, z = torch.randn(2, 2, 4, 4, 6, generator=torch.Generator().manual_seed(3)).unbind()
    plain, shapes = backbone(x, t, text, {}), backbone.shapes(4, 6)
    added = embedded(backbone, z, text) - embedded(backbone, 0 * z, text)
    through = backbone(x, t, text, {"in": unpack(added, (4 // side, 6 // side), side)})
    torch.testing.assert_close(through, backbone(x + z, t, text, {}), rtol=1e-4, atol=1e-5)
    outputs = [plain]
    for point, shape in shapes.items():
        residual = torch.zeros(2, *shape)
        torch.testing.assert_close(backbone(x, t, text, {point: residual}), plain, rtol=0, atol=0)
        residual[0, :, 0, 0] = torch.randn(shape[0], generator=torch.Generator().manual_seed(4))
        outputs.append(backbone(x, t, text, {point: residual}))
        assert torch.equal(outputs[-1][1], plain[1]), "the other item of the batch"
    assert len(shapes) == 1 + len(backbone.tapped())
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(outputs) for b in outputs[:i]), "each point differs"
    last = outputs[-1][0] - plain[0]  # after the last block, tokens no longer meet
    assert last[:, :side, :side].abs().max() > 1e-3
    assert last[:, side:].abs().max() < 1e-6 and last[:, :, side:].abs().max() < 1e-6


@torch.no_grad()
def test_sketch_tokens_equal_further_input_channels(tiny, folders, tmp_path):
    """hint=tokens on Flux is diffusers' Flux Control: an embedding of latents and control latents side by side."""
    cfg = config(tiny, "flux", folders["flux"], tmp_path, "hint=tokens", "hint.zero_init=false")
    _, model, batch = built(cfg, COARSE, tmp_path)
    net, out = model.backbone.net, model.hint.out
    wide = type(net).from_config({**net.config, "in_channels": 32, "out_channels": 16})
    state, embedding = net.state_dict(), out.weight.flatten(1)
    state["x_embedder.weight"] = torch.cat([state["x_embedder.weight"], embedding], dim=1)
    state["x_embedder.bias"] = state["x_embedder.bias"] + out.bias
    wide.load_state_dict(state)
    x_t, t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([900.0, 300.0])
    ours = model.denoise(x_t, t, model.condition(batch)).value
    control = model.hint.shared.codec.encode(2 * batch.sketch.expand(-1, 3, -1, -1) - 1)
    tuned = copy(model.backbone)
    tuned._modules = {**model.backbone._modules, "net": wide}
    theirs = tuned(torch.cat([x_t, control], dim=1), t, model.text(CAPTIONS), {})
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    without = model.denoise(x_t, t, model.condition(batch, {"sketch": torch.tensor([False, True])})).value
    assert torch.equal(without[1], ours[1]) and (without[0] - ours[0]).abs().max() > 1e-3
