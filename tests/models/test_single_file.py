"""Networks from single files: backbone, autoencoder, text encoder, ControlNet and adapter; and LoRA merged at the start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_sd import controlnet, real_merges, save_sd, save_tokenizer
from transformers import AutoTokenizer, CLIPTextModel

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensor_files import lazy
from ragaf_exp.models.backbones.stable_diffusion import StableUNet
from ragaf_exp.models.loading import ldm, merging, single_file
from ragaf_exp.models.loading.hub import Origin, network
from ragaf_exp.models.loading.schedule import FolderDiffusion
from ragaf_exp.models.text.clip import ClipText
from ragaf_exp.models.text.clip_vocabulary import clip_tokenizer

KINDS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}


@pytest.fixture(scope="module")
def sd(tmp_path_factory) -> Path:
    return save_sd(tmp_path_factory.mktemp("sd") / "sd")


@pytest.fixture(scope="module")
def nets(sd) -> dict:
    return {name: kind.from_pretrained(sd, subfolder=name).eval() for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def file(nets, tmp_path_factory) -> Path:
    """A whole checkpoint in the original layout."""
    unet, vae, text = (nets[name].state_dict() for name in KINDS)
    state = {f"{ldm.UNET}{new}": unet[old] for old, new in ldm.unet_names(unet).items()}
    for old, new in ldm.autoencoder_names(vae).items():
        state[f"{ldm.VAE}{new}"] = vae[old][..., None, None] if ldm.is_projection(new) else vae[old]
    state |= {f"{ldm.TEXT}{new}": text[old] for old, new in ldm.text_names(text).items()}
    path = tmp_path_factory.mktemp("file") / "whole.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, path, {"modelspec.prediction_type": "v"})
    return path


@pytest.fixture
def known(nets, monkeypatch):
    """The tiny networks as known architectures."""
    configs = {kind: [{}, dict(nets[name].config) if name != "text_encoder" else nets[name].config.to_dict()]
               for name, kind in KINDS.items()}  # fmt: skip
    for kind, listed in configs.items():
        monkeypatch.setitem(single_file.KNOWN, kind, listed[1:])


@pytest.mark.parametrize("name", KINDS)
def test_every_network_of_a_checkpoint_has_the_folders_weights(name, known, nets, file):
    net, source = network(KINDS[name], Origin("backbone", str(file)), name, {})
    state = nets[name].state_dict()
    assert net.state_dict().keys() == state.keys() and len(source.sha256) == 64
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert not any(buffer.is_meta for buffer in net.buffers())
    with torch.device("meta"):
        ghost, nothing = network(KINDS[name], Origin("backbone", str(file)), name, {})
    assert nothing is None and {k: v.shape for k, v in ghost.state_dict().items()} == {k: v.shape for k, v in state.items()}


def test_backbone_schedule_and_outputs(known, nets, file, sd):
    ours = StableUNet(4, nets["unet"].config.cross_attention_dim, source=str(file))
    x = (torch.randn(1, 4, 8, 8), torch.tensor([9]), torch.randn(1, 5, nets["unet"].config.cross_attention_dim))
    with torch.no_grad():
        torch.testing.assert_close(ours.unet(*x).sample, nets["unet"](*x).sample, rtol=1e-5, atol=1e-6)
    diffusion = FolderDiffusion(source=str(file))
    assert diffusion.prediction == "v", "as the file's metadata states"
    diffusion.check_pretrained(ours.schedule)


def test_another_file_is_one_line(known, tmp_path, file):
    save_file({"a.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no UNet2DConditionModel of Stable Diffusion 1.x or 2.x") as caught:
        network(UNet2DConditionModel, Origin("backbone", str(tmp_path / "other.safetensors")), "unet", {})
    assert "\n" not in str(caught.value)
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="cut.safetensors: damaged"):
        network(UNet2DConditionModel, Origin("backbone", str(tmp_path / "cut.safetensors")), "unet", {})


def test_a_checkpoint_in_pytorchs_format_holds_tensors_only(known, nets, file, tmp_path):
    torch.save({"state_dict": load_file(file)}, tmp_path / "model.ckpt")
    net, _ = network(UNet2DConditionModel, Origin("backbone", str(tmp_path / "model.ckpt")), "unet", {})
    assert torch.equal(net.conv_in.weight, nets["unet"].conv_in.weight)
    torch.save({"state_dict": Path("code")}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="holds more than tensors"):
        network(UNet2DConditionModel, Origin("backbone", str(tmp_path / "evil.ckpt")), "unet", {})


def test_the_tokenizer_of_single_files_is_clips(shared_data, tmp_path):
    merges = next((shared_data.parent / "weights" / "clip_bpe").glob("*.gz"), None)
    if merges is None:
        pytest.skip("no CLIP merges in the real test data")
    save_tokenizer(tmp_path / "tokenizer", real_merges(merges))
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "tokenizer").backend_tokenizer, clip_tokenizer()
    assert ours.get_vocab() == theirs.get_vocab()
    for text in ("a photograph of an astronaut riding a horse", "Ünïcode 東京 :) it's 12", "", "a" * 50):
        assert ours.encode(text).ids == theirs.encode(text).ids


def test_text_encoder_of_a_file_takes_clips_tokenizer(file):
    from omegaconf import OmegaConf

    settings = {"source": str(file), "revision": "", "offline": True, "variant": "", "weights": "pretrained",
                "tokenizer_subfolder": "tokenizer"}  # fmt: skip
    assert ClipText.tokenizer_for(OmegaConf.create(settings), list).get_vocab_size() == 49408


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_a_controlnet_starts_from_a_file(layout, known, file, tmp_path, nets):
    backbone = StableUNet(4, nets["unet"].config.cross_attention_dim, source=str(file))
    trained = ControlNetModel.from_unet(backbone.unet, conditioning_embedding_out_channels=(4, 8, 8, 8))
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = trained.state_dict()
    names = ldm.controlnet_names(state) if layout == "original" else dict(zip(state, state, strict=True))
    prefix = ldm.CONTROLNET if layout == "original" else ""
    save_file({f"{prefix}{names[k]}": v.contiguous() for k, v in state.items()}, tmp_path / "control.safetensors")
    options = {"source": str(tmp_path / "control.safetensors"), "channels": (4, 8, 8, 8)}
    hint = controlnet(backbone, 8, 8, **options)
    assert all(torch.equal(value, state[name]) for name, value in hint.net.state_dict().items())
    assert hint.source is not None and len(hint.source.sha256) == 64
    with pytest.raises(UserError, match="do not fit a ControlNetModel of this backbone"):
        controlnet(backbone, 8, 8, **{**options, "channels": (4, 8, 8, 16)})


# --- memory.merge


@pytest.fixture(scope="module")
def adapters(sd, tmp_path_factory):
    """LoRA of the tiny UNet as kohya's and as diffusers' file, and the adapted UNet."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    from ragaf_exp.export.lora import in_kohya

    unet = UNet2DConditionModel.from_pretrained(sd, subfolder="unet").eval()
    names = [n for n, _ in unet.named_modules() if n.endswith(("to_q", "to_out.0", "conv1", "proj_in"))]
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=names))
    for name, parameter in unet.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    layers = {k: v.detach().contiguous() for k, v in get_peft_model_state_dict(unet).items()}
    folder = tmp_path_factory.mktemp("lora")
    save_file(in_kohya(dict(layers)), folder / "kohya.safetensors")
    theirs = convert_state_dict_to_diffusers({f"unet.{k}": v for k, v in layers.items()})
    save_file(dict(theirs), folder / "diffusers.safetensors")
    save_file({f"unet.{k}": v for k, v in layers.items()}, folder / "peft.safetensors")
    return folder, unet


def predict(unet: UNet2DConditionModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 4, 8, 8), generator=generator)
    text = torch.randn((1, 5, unet.config.cross_attention_dim), generator=generator)
    with torch.no_grad():
        return unet(x, torch.tensor([9]), text).sample


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
def test_a_merged_lora_has_the_adapters_effect(layout, adapters, sd):
    folder, adapted = adapters
    backbone = StableUNet(4, adapted.config.cross_attention_dim, source=str(sd))
    plain = predict(backbone.unet)
    merging.merge_lora(backbone, str(folder / f"{layout}.safetensors"), 1.0)
    torch.testing.assert_close(predict(backbone.unet), predict(adapted), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(predict(backbone.unet), plain, atol=1e-4)
    changed = {name for name in backbone.changed}
    assert "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight" in changed
    assert all(name.endswith(".weight") for name in changed) and "unet.conv_in.weight" not in changed
    merging.merge_lora(backbone, str(folder / f"{layout}.safetensors"), -1.0)
    torch.testing.assert_close(predict(backbone.unet), plain, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(rank=st.integers(1, 4), alpha=st.floats(0.25, 8), scale=st.floats(-2, 2))
def test_alpha_and_scale_multiply_the_change(rank, alpha, scale):
    a, b = torch.arange(rank * 3.0).reshape(rank, 3), torch.ones(2, rank)
    layer = merging.Layer(lazy(a), lazy(b), lazy(torch.tensor(alpha)))
    torch.testing.assert_close(layer.change(scale), scale * alpha / rank * (b @ a))
    torch.testing.assert_close(merging.Layer(lazy(a), lazy(b)).change(scale), scale * (b @ a))


def test_a_lora_that_does_not_fit_is_one_line(adapters, sd, tmp_path):
    folder, adapted = adapters
    backbone = StableUNet(4, adapted.config.cross_attention_dim, source=str(sd))
    state = load_file(folder / "kohya.safetensors")
    stem = next(iter(state)).split(".")[0]
    wrong = {
        "lacks one of its two matrices": {k: v for k, v in state.items() if not k.startswith(f"{stem}.lora_up")},
        "is not in this backbone": {k.replace("down_blocks_0", "down_blocks_7"): v for k, v in state.items()},
        "is no LoRA weight": {**state, f"{stem}.hada_w1_a": torch.ones(2)},
        "holds no LoRA": {"lora_te_text_model.alpha": torch.tensor(1.0)},
        "has the shape": {**state, f"{stem}.lora_up.weight": torch.ones(3, 4)},
    }
    for says, content in wrong.items():
        save_file({k: v.contiguous() for k, v in content.items()}, tmp_path / "lora.safetensors")
        with pytest.raises(UserError, match=says) as caught:
            merging.merge_lora(backbone, str(tmp_path / "lora.safetensors"), 1.0)
        assert "memory.merge=" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        merging.merge_lora(backbone, str(tmp_path / "nowhere.safetensors"), 1.0)


def test_files_of_sd_scripts_are_read_without_diffusers(adapters):
    """diffusers' own loader gives the same layers as the reader of merged files."""
    folder, _ = adapters
    layers = merging.read_layers(single_file.read_file(folder / "kohya.safetensors", "x"), "x")
    where = {"weight_name": "kohya.safetensors", "local_files_only": True}
    read, _ = StableDiffusionPipeline.lora_state_dict(str(folder), **where)[:2]
    assert 2 * len(layers) == len([name for name in read if not name.endswith(".alpha")])
