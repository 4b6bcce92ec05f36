"""hint=controlnet on pretrained transformers: it starts at nothing, and computes what diffusers' pipelines compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    FluxControlNetPipeline,
    QwenImageControlNetPipeline,
    SD3ControlNetModel,
    StableDiffusion3ControlNetPipeline,
    ZImageControlNetModel,
    ZImageControlNetPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from family_runs import CAPTIONS, CONTROLLED, built, config, pipeline_of, save_all
from test_families import arranged, call_of
from tiny_editing import EDITING

from ragaf_exp.config.schema import COARSE
from ragaf_exp.models.backbones.pretrained_transformer import pack
from ragaf_exp.models.blocks import repeated_blocks
from ragaf_exp.models.prompts import scaled

PIPELINES: dict[str, Any] = {
    "flux": FluxControlNetPipeline, "sd3": StableDiffusion3ControlNetPipeline, "qwen_image": QwenImageControlNetPipeline,
    "z_image": ZImageControlNetPipeline,
}  # fmt: skip
CONTROL, TWO_STEPS = "hint=controlnet", ["sampler.steps=2", "sampler.scheduler=euler"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return save_all(tmp_path_factory.mktemp("families"))


def opened(module: Any) -> Any:
    """Random weights where the ControlNet starts at zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return module


def noised(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 4, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([900.0, 300.0])


def control_image(batch: Any) -> torch.Tensor:
    """The sketch as the pipelines' preprocessed image: white strokes on black, in [-1,1]."""
    return 2 * batch.sketch.expand(-1, 3, -1, -1) - 1


@pytest.mark.parametrize("family", CONTROLLED)
@torch.no_grad()
def test_a_fresh_controlnet_adds_nothing_to_the_bit_and_copies_the_transformer(family, tiny, folders, tmp_path):
    _, model, batch = built(config(tiny, family, folders[family], tmp_path, CONTROL), COARSE, tmp_path)
    (x_t, t), condition = noised(), model.condition(batch)
    predicted = model.denoise(x_t, t, condition).value
    assert torch.equal(predicted, model.backbone(x_t, t, model.text(CAPTIONS), {}))
    net, source = model.hint.net, model.backbone.net.state_dict()
    copied = {name for name, value in net.state_dict().items() if torch.equal(value, source.get(origin(name), value + 1))}
    started = {name for name, value in net.named_parameters() if not value.any()}
    zero = ("controlnet_blocks", "controlnet_single_blocks", "controlnet_x_embedder", "pos_embed_input", "before_proj",
            "after_proj")  # fmt: skip
    own = {name for name in net.state_dict() if any(part in name for part in zero)}
    assert own <= started, "the layers that join both networks start at zero"
    assert copied | own == set(net.state_dict()) and not copied & own
    opened(model.hint)
    changed = model.denoise(x_t, t, condition).value
    assert (changed - predicted).abs().max() > 1e-2
    dropped = model.denoise(x_t, t, model.condition(batch, {"sketch": torch.tensor([False, True])})).value
    assert torch.equal(dropped[0], predicted[0]) and torch.equal(dropped[1], changed[1])


def origin(name: str) -> str:
    """The name in the transformer of a copied weight; Z-Image's ControlNet in the tests copies the first layer."""
    return name.replace("control_layers.", "layers.").removeprefix("control_")


@pytest.mark.parametrize(
    ("family", "guidance"), [(family, 1.0) for family in CONTROLLED] + [("sd3", 4.0), ("z_image", 4.0)]
)
def test_our_sampling_loop_gives_the_image_of_the_controlnet_pipeline(
    family, guidance, tiny, folders, tmp_path, monkeypatch
):
    """From hint.source= and from the same object. With true guidance, Flux and Qwen-Image reuse the prompt's residuals."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    sampler = [f"sampler.guidance={guidance}", "sampler.steps=3", "sampler.scheduler=euler"]
    cfg = config(tiny, family, folders[family], tmp_path, CONTROL, "hint.layers=2", *sampler)
    _, fresh, _ = built(cfg, COARSE, tmp_path)
    opened(fresh.hint).net.save_pretrained(tmp_path / "control")
    cfg.hint.source = str(tmp_path / "control")
    parts, model, batch = built(cfg, COARSE, tmp_path)
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    ours = (parts.codec.decode(parts.sampler.sample(model, batch, noise)[0]) + 1) / 2
    net = type(fresh.hint.net).from_pretrained(tmp_path / "control")
    assert net.state_dict().keys() == model.hint.net.state_dict().keys(), "no weights of the transformer are its own"
    plain = pipeline_of(folders[family])
    theirs = PIPELINES[family](**plain.components, controlnet=net)
    theirs.set_progress_bar_config(disable=True)
    call = call_of(family, 3, guidance) | {"output_type": "pt"}
    images = theirs(
        list(CAPTIONS), latents=arranged(family, noise), control_image=control_image(batch),
        controlnet_conditioning_scale=1.0, **call,
    ).images  # fmt: skip
    torch.testing.assert_close(ours, images, rtol=1e-4, atol=1e-4)
    without = plain(list(CAPTIONS), latents=arranged(family, noise), **call).images
    assert (images - without).abs().max() > 1e-2


SD3_FORMS: dict[str, dict[str, Any]] = {
    "pooled": {"force_zeros_for_pooled_projection": False},
    "large": {"force_zeros_for_pooled_projection": False, "use_pos_embed": False, "joint_attention_dim": None},
}


@pytest.mark.parametrize("form", SD3_FORMS)
def test_forms_of_the_controlnet_of_sd3(form, tiny, folders, tmp_path, monkeypatch):
    """pooled: it reads the pooled text, and the sketch's latents are shifted. large: as those of SD 3.5 large."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    transformer = pipeline_of(folders["sd3"]).transformer
    names = ("in_channels", "num_attention_heads", "attention_head_dim", "joint_attention_dim", "pooled_projection_dim",
             "caption_projection_dim", "pos_embed_max_size", "sample_size")  # fmt: skip
    settings = {name: transformer.config[name] for name in names} | {"num_layers": 2} | SD3_FORMS[form]
    opened(SD3ControlNetModel(**settings)).save_pretrained(tmp_path / "control")
    more = [CONTROL, f"hint.source={tmp_path / 'control'}", "sampler.guidance=2", *TWO_STEPS]
    parts, model, batch = built(config(tiny, "sd3", folders["sd3"], tmp_path, *more), COARSE, tmp_path)
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    ours = (parts.codec.decode(parts.sampler.sample(model, batch, noise)[0]) + 1) / 2
    net = SD3ControlNetModel.from_pretrained(tmp_path / "control")
    theirs = PIPELINES["sd3"](**pipeline_of(folders["sd3"]).components, controlnet=net)
    call = call_of("sd3", 2, 2.0) | {"output_type": "pt", "control_image": control_image(batch)}
    torch.testing.assert_close(ours, theirs(list(CAPTIONS), latents=noise, **call).images, rtol=1e-4, atol=1e-4)


def test_a_controlnet_of_z_image_with_channels_for_inpainting(tiny, folders, tmp_path, monkeypatch):
    """Version 2: its own blocks before the refiner, and zeros in the further channels."""
    transformer = pipeline_of(folders["z_image"]).transformer
    shared = {name: transformer.config[name] for name in ("dim", "n_heads", "n_kv_heads", "n_refiner_layers")}
    net = opened(ZImageControlNetModel(
        control_layers_places=[0, 1], control_refiner_layers_places=[0], control_in_dim=9,
        add_control_noise_refiner="control_noise_refiner", **shared,
    ))  # fmt: skip
    net.save_pretrained(tmp_path / "control")
    more = [CONTROL, f"hint.source={tmp_path / 'control'}", "sampler.guidance=1", *TWO_STEPS]
    parts, model, batch = built(config(tiny, "z_image", folders["z_image"], tmp_path, *more), COARSE, tmp_path)
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    ours = (parts.codec.decode(parts.sampler.sample(model, batch, noise)[0]) + 1) / 2
    theirs = PIPELINES["z_image"](**pipeline_of(folders["z_image"]).components, controlnet=net)
    call = call_of("z_image", 2) | {"output_type": "pt", "control_image": control_image(batch)}
    images = theirs(list(CAPTIONS), latents=noise, controlnet_conditioning_scale=1.0, **call).images
    torch.testing.assert_close(ours, images, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", CONTROLLED)
def test_a_copy_has_a_quarter_of_the_blocks_or_as_many_as_given(family, tiny, folders, tmp_path):
    present = {"flux": [2, 2], "sd3": [3], "qwen_image": [3], "z_image": [2]}[family]
    for more, counts in (((), [1] * len(present)), (("hint.layers=2",), [2, *[1] * (len(present) - 1)])):
        _, model, _ = built(config(tiny, family, folders[family], tmp_path, CONTROL, *more), COARSE, tmp_path)
        net = model.hint.net
        lists = [getattr(net, name, None) for name in ("transformer_blocks", "single_transformer_blocks", "control_layers")]
        assert [len(blocks) for blocks in lists if blocks is not None] == counts
        assert {id(b) for b in model.hint.blocks()} <= {id(b) for b in repeated_blocks(model)}, "compiled and sharded"


@pytest.mark.parametrize("family", CONTROLLED)
@torch.no_grad()
def test_a_copy_of_a_stored_base_has_its_restored_weights(family, tiny, folders, tmp_path):
    more = [CONTROL, "memory.tune=frozen"]
    (_, exact, _), (_, stored, batch) = (
        built(config(tiny, family, folders[family], tmp_path, *more, f"memory.base={base}"), COARSE, tmp_path)
        for base in ("float32", "bfloat16")
    )
    weights = stored.hint.net.state_dict()
    for name, value in exact.hint.net.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0.01, atol=1e-6, msg=name)
    assert all(value.dtype == torch.float32 for value in weights.values())
    x_t, t = noised()
    assert stored.denoise(x_t, t, stored.condition(batch)).value.isfinite().all()


EDITED = {"flux_kontext": [], "flux_fill": [], "qwen_image_edit": ["text.max_tokens=400"],
          "qwen_image_edit_plus": ["text.max_tokens=400"]}  # fmt: skip


@pytest.mark.parametrize("family", EDITED)
@torch.no_grad()
def test_an_editing_transformer_is_controlled_in_x_t_alone(family, tiny, tmp_path):
    folder = EDITING[family](tmp_path / "folder")
    more = [CONTROL, "task=inpaint", "task.image_hint=false", *EDITED[family]]
    _, model, batch = built(config(tiny, family, folder, tmp_path, *more), COARSE, tmp_path)
    x_t, t = noised()
    fresh, condition = model.denoise(x_t, t, model.condition(batch)).value, model.condition(batch)
    text = condition.denoiser_text
    x = torch.cat([x_t, condition.source], dim=1)
    assert torch.equal(fresh, model.backbone(x, t, text, {})), "it starts at nothing"
    residuals = opened(model.hint).at(condition.hint, x, t, text)
    other = model.hint.at(condition.hint, torch.cat([x_t, condition.source + 1], dim=1), t, text)
    assert residuals.keys() == other.keys() and all(torch.equal(residuals[p], other[p]) for p in residuals)
    given = model.backbone.control.arguments(residuals, 2 * 4)
    for tokens in (tokens for samples in given.values() for tokens in samples):
        assert tokens.shape == (2, 8, model.backbone.width) and tokens[:, :4].any() and not tokens[:, 4:].any()
    assert (model.denoise(x_t, t, condition).value - fresh).abs().max() > 1e-2


@torch.no_grad()
def test_a_copy_of_flux_fill_embeds_x_t_as_fill_does(tiny, tmp_path):
    more = [CONTROL, "task=inpaint", "task.image_hint=false"]
    folder = EDITING["flux_fill"](tmp_path / "folder")
    _, model, _ = built(config(tiny, "flux_fill", folder, tmp_path, *more), COARSE, tmp_path)
    x_t, _ = noised()
    wide = torch.cat([pack(x_t, 2), torch.zeros(2, 4, 4 * (4 + 64))], dim=2)
    torch.testing.assert_close(model.hint.net.x_embedder(pack(x_t, 2)), model.backbone.net.x_embedder(wide))


def test_the_sketchs_factor_per_region_reaches_the_image_alone():
    """Residuals of padding and text, which Z-Image has, have no factor."""
    residuals = {"control.0": torch.ones(1, 2, 2, 2), "control.rest.0": torch.ones(1, 3, 2)}
    outline = torch.cat([torch.zeros(1, 1, 4, 2), torch.ones(1, 1, 4, 2)], dim=3)
    result = scaled(residuals, outline)
    assert torch.equal(result["control.0"][0, 0], torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert torch.equal(result["control.rest.0"], residuals["control.rest.0"])
