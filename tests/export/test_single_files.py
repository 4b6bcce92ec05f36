"""Single files: read by diffusers' loaders with equal weights and outputs, and recognised by the rules of other tools."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionPipeline, T2IAdapter, UNet2DConditionModel
from exporting import train, write
from safetensors import safe_open
from safetensors.torch import load_file

from ragaf_exp.config.compose import config_hash
from ragaf_exp.core.tensor_files import read_metadata
from ragaf_exp.export.metadata import CONVENTION
from ragaf_exp.export.networks import WEIGHTS
from ragaf_exp.inference.load import load_run
from ragaf_exp.models.loading import ldm
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.process  # trains three short runs


def single(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def inputs(cross: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn((1, 4, 8, 8), generator=generator), "timestep": torch.tensor([400]),
        "encoder_hidden_states": torch.randn((1, 77, cross), generator=generator),
    }  # fmt: skip


@torch.no_grad()
def residuals(net: ControlNetModel, drawing: torch.Tensor) -> list[torch.Tensor]:
    down, mid = net(**inputs(net.config.cross_attention_dim), controlnet_cond=drawing, return_dict=False)
    return [*down, mid]


@torch.no_grad()
def fill_zero_layers(net: ControlNetModel) -> None:
    """Give the layers that start at zero the same random weights in every net: after two steps they hide the drawing."""
    generator = torch.Generator().manual_seed(1)
    started_at_zero = ("controlnet_down_blocks", "controlnet_mid_block", "controlnet_cond_embedding.conv_out")
    for name, weights in sorted(net.named_parameters()):
        if name.startswith(started_at_zero):
            # a large scale for the hint's last layer: the random ones before it shrink the drawing to nothing
            scale = 1e5 if name.endswith("conv_out.weight") else 0.2
            weights.copy_(scale * torch.randn(weights.shape, generator=generator))


@pytest.fixture(scope="module")
def drawing() -> torch.Tensor:
    """(1,3,64,64): white strokes on black."""
    image = torch.zeros(1, 3, 64, 64)
    image[..., 10:50, 20:22] = 1
    return image


@pytest.mark.parametrize("form", ["folder", "original", "diffusers"])
def test_the_controlnet_as_other_tools_load_it(form, lora_export, lora_run, drawing, tmp_path):
    folder = lora_export / "controlnet"
    if form == "folder":
        theirs = ControlNetModel.from_pretrained(folder)
    else:
        file = single(lora_export, "control_*.safetensors") if form == "original" else folder / WEIGHTS
        theirs = ControlNetModel.from_single_file(str(file), config=str(folder), local_files_only=True)
    _, pipeline = load_run(*RunFolder.read(lora_run))
    hint = pipeline.models["coarse"].hint
    state = hint.net.state_dict()
    assert theirs.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in theirs.state_dict().items())
    for net in (hint.net, theirs):
        fill_zero_layers(net)
    x = inputs(theirs.config.cross_attention_dim)
    from ragaf_exp.models.conditioning import Text

    text = Text(x["encoder_hidden_states"], torch.ones(1, 77, dtype=torch.bool))
    keep = torch.ones(1, dtype=torch.bool)
    with torch.no_grad():
        ours = hint.at(hint(hint.features(drawing[:, :1]), keep), x["sample"], x["timestep"], text)
    for one, other in zip(ours.values(), residuals(theirs.eval(), drawing), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))
    inverted = residuals(theirs, 1 - drawing)
    largest = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(ours.values(), inverted, strict=True))
    assert largest > 1e-3, "black strokes on white are another input"


def layout_by_comfy(keys: set[str]) -> str | None:
    """ComfyUI's rules for a ControlNet file, restated: which layout it takes a file for."""
    if "controlnet_cond_embedding.conv_in.weight" in keys:
        return "diffusers"
    if "control_model.zero_convs.0.0.weight" in keys:
        return "original, in a prefix"
    return "original" if "zero_convs.0.0.weight" in keys else None


def test_comfyui_finds_the_layout_and_the_hints_channels(lora_export):
    file = single(lora_export, "control_*.safetensors")
    state = load_file(file)
    assert layout_by_comfy(set(state)) == "original, in a prefix"
    assert state["control_model.input_hint_block.0.weight"].shape[1] == 3
    assert layout_by_comfy(set(load_file(lora_export / "controlnet" / WEIGHTS))) == "diffusers"
    assert not file.stem.endswith("_shuffle")


def test_metadata_names_the_run_and_the_convention(lora_export, lora_run):
    _, cfg = RunFolder.read(lora_run)
    texts = read_metadata(single(lora_export, "control_*.safetensors"))
    assert texts["modelspec.sai_model_spec"] == "1.0.1" and texts["modelspec.architecture"].endswith("/controlnet")
    assert texts["modelspec.usage_hint"] == CONVENTION and texts["ragaf_exp.config_hash"] == config_hash(cfg)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", texts["modelspec.date"]) and texts["modelspec.prediction_type"] == "epsilon"
    assert texts["modelspec.thumbnail"].startswith("data:image/jpeg;base64,/9j/")
    texts = read_metadata(single(lora_export, "*_lora_lora.safetensors"))
    assert texts["ss_network_dim"] == texts["ss_network_alpha"] == "4" and "ss_base_model_version" in texts
    assert single(lora_export, "control_*.preview.png").stat().st_size > 100


# --- LoRA


def lora_by_comfy(file: set[str], modules: list[str]) -> int:
    """ComfyUI's rules for LoRA of a UNet, restated: the number of modules that it recognises in a file."""
    count = 0
    for module in modules:
        processor = module.replace(".to_", ".processor.to_").removesuffix(".0")
        stems = ["lora_unet_" + module.replace(".", "_"), processor, f"unet.{processor}"]
        ups = (".lora_up.weight", "_lora.up.weight", ".lora_B.weight", ".lora.up.weight", ".lora_linear_layer.up.weight")
        count += any(stem + up in file for stem in stems for up in ups)
    return count


@pytest.fixture(scope="module")
def modules(sd) -> list[str]:
    unet = UNet2DConditionModel.from_pretrained(sd, subfolder="unet")
    return [n for n, _ in unet.named_modules() if re.search(r"\.attn[12]\.to_(q|k|v|out\.0)$", n)]


def test_comfyui_finds_every_layer_of_the_kohya_file_and_its_alpha(lora_export, modules):
    kohya, theirs = load_file(single(lora_export, "*_lora_lora.safetensors")), load_file(
        lora_export / "lora" / "pytorch_lora_weights.safetensors"
    )
    assert len(modules) == 32 and lora_by_comfy(set(kohya), modules) == 32 and lora_by_comfy(set(theirs), modules) == 0
    stems = {key.split(".")[0] for key in kohya}
    assert len(stems) == 32 and len(kohya) == 3 * 32
    for stem in stems:
        rank = kohya[f"{stem}.lora_down.weight"].shape[0]
        assert float(kohya[f"{stem}.alpha"]) == rank == 4 and kohya[f"{stem}.alpha"].dtype == torch.float32


def test_both_files_have_the_effect_of_the_trained_layers(lora_export, lora_run, sd):
    _, pipeline = load_run(*RunFolder.read(lora_run))
    ours = pipeline.models["refine"].backbone.unet
    x = inputs(ours.config.cross_attention_dim)
    with torch.no_grad():
        wanted = ours(**x).sample
    for folder, name in ((lora_export / "lora", "pytorch_lora_weights.safetensors"),
                         (lora_export, single(lora_export, "*_lora_lora.safetensors").name)):  # fmt: skip
        unet = UNet2DConditionModel.from_pretrained(sd, subfolder="unet").eval()
        with torch.no_grad():
            plain = unet(**x).sample
        state, alphas = StableDiffusionPipeline.lora_state_dict(
            str(folder), weight_name=name, local_files_only=True, unet_config=unet.config
        )[:2]  # fmt: skip
        StableDiffusionPipeline.load_lora_into_unet(state, network_alphas=alphas, unet=unet)
        with torch.no_grad():
            after = unet(**x).sample
        torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-5)
        assert not torch.equal(plain, after)


# --- a whole checkpoint, and the T2I-Adapter


def test_a_whole_checkpoint_is_read_by_diffusers(full_export, full_run, sd):
    file = str(single(full_export, "controlnet_full.safetensors"))
    _, pipeline = load_run(*RunFolder.read(full_run))
    ours = pipeline.models["coarse"].backbone.unet
    unet = UNet2DConditionModel.from_single_file(file, config=str(sd), subfolder="unet", local_files_only=True)
    folder = UNet2DConditionModel.from_pretrained(full_export / "unet_tuned")
    base = UNet2DConditionModel.from_pretrained(sd, subfolder="unet").state_dict()
    for theirs in (unet, folder):
        state = theirs.state_dict()
        assert state.keys() == ours.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in ours.state_dict().items())
        assert any(not torch.equal(state[name], value) for name, value in base.items()), "it was trained"
        x = inputs(ours.config.cross_attention_dim)
        with torch.no_grad():
            torch.testing.assert_close(theirs.eval()(**x).sample, ours(**x).sample, rtol=1e-5, atol=1e-6)
    vae = AutoencoderKL.from_single_file(file, config=str(sd), subfolder="vae", local_files_only=True).state_dict()
    expected = AutoencoderKL.from_pretrained(sd, subfolder="vae").state_dict()
    assert vae.keys() == expected.keys() and all(torch.equal(vae[name], value) for name, value in expected.items())
    with safe_open(file, "pt") as content:
        keys = set(content.keys())
    assert {key.split(".")[0] for key in keys} == {"model", "first_stage_model", "cond_stage_model"}
    assert "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight" in keys


def test_the_t2i_adapter_as_diffusers_loads_it(tiny, sd, tmp_path, drawing):
    run = train(tiny, sd, tmp_path, "frozen", "t2i")
    out = write(run, tmp_path / "out", "adapter")
    _, pipeline = load_run(*RunFolder.read(run))
    ours, theirs = pipeline.models["coarse"].hint.net, T2IAdapter.from_pretrained(out / "t2iadapter").eval()
    channels = ours.config.in_channels
    with torch.no_grad():
        for one, other in zip(ours(drawing[:, :channels]), theirs(drawing[:, :channels]), strict=True):
            assert torch.equal(one, other)
    state = load_file(single(out, "t2iadapter_*.safetensors"))
    assert all(torch.equal(state[name], value) for name, value in ours.state_dict().items())
    assert "adapter.body.0.resnets.0.block1.weight" in state and read_metadata(single(out, "t2iadapter_*.safetensors"))


def test_half_files_hold_float16_of_the_same_values(full_run, tmp_path):
    out = write(full_run, tmp_path / "half", "controlnet", half=True)
    half = load_file(single(out, "control_*.safetensors"))
    _, pipeline = load_run(*RunFolder.read(full_run))
    names = ldm.controlnet_names(pipeline.models["coarse"].hint.net.state_dict().keys())
    for name, value in pipeline.models["coarse"].hint.net.state_dict().items():
        assert torch.equal(half[f"control_model.{names[name]}"], value.half())


def test_the_stage_is_chosen(full_run, tmp_path):
    """The ControlNets of the two stages differ where stage 2 trains it, and stage= says whose is exported."""
    weights = {}
    for stage in ("coarse", "refine"):
        out = write(full_run, tmp_path / stage, "controlnet", stage=stage)
        weights[stage] = load_file(out / "controlnet" / WEIGHTS)
    _, pipeline = load_run(*RunFolder.read(full_run))
    for stage, state in weights.items():
        expected = pipeline.models[stage].hint.net.state_dict()
        assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert any(not np.array_equal(weights["coarse"][k], weights["refine"][k]) for k in weights["coarse"])
