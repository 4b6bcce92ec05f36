"""Backbones of Stable Diffusion's layout and from scratch: counts, shapes, any size, what a folder must hold."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny_sd import WIDTH, save_sd

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import collate
from ragaf_exp.models.backbones import taps
from ragaf_exp.models.backbones.stable_diffusion import StableUNet
from ragaf_exp.models.backbones.unet import ScratchUNet
from ragaf_exp.models.conditioning import Text
from ragaf_exp.runs.folder import RunFolder


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return save_sd(tmp_path_factory.mktemp("sd") / "sd")


@pytest.fixture(scope="module")
def on_sd(tiny, sd) -> list[str]:
    """tiny on a Stable Diffusion folder."""
    mine = [word for word in tiny if not word.startswith(("backbone.", "text."))]
    return [*mine, "backbone=sd15", f"backbone.source={sd}", "text=clip", "codec=kl", "diffusion=folder",
            "hint.zero_init=true"]  # fmt: skip


def count(module: torch.nn.Module, *parts: str) -> int:
    return sum(p.numel() for name, p in module.named_parameters() if all(part in name for part in parts))


def text_of(batch: int, width: int, tokens: int = 5) -> Text:
    return Text(torch.randn(batch, tokens, width), torch.ones(batch, tokens, dtype=torch.bool))


@pytest.fixture(scope="module")
def sd15():
    """Stable Diffusion 1.5's UNet by its numbers, without weights."""
    with torch.device("meta"):
        return StableUNet(4, 768, weights="none")


def test_stable_diffusion_by_its_numbers(sd15):
    assert count(sd15) == 859_520_964, "860 M, as the published UNet's"
    assert count(sd15, ".attn1.") == 49_574_080, "self-attention alone: CatVTON's published 49.57 M are this set"
    shapes = sd15.shapes(64, 64)
    assert shapes["in"] == shapes["up.3"] == (320, 64, 64) and shapes["mid"] == (1280, 8, 8)
    assert shapes["down.1"] == (640, 16, 16) and shapes["up.1"] == (1280, 32, 32) and len(shapes) == 10
    assert sd15.cross_layers == 16


def test_no_set_of_attention_weights_is_the_49_million_that_light_diffusion_quotes(sd15):
    """It says that it trains self-attention alone, and 49.1 M: 0.5 M less than that is. Every set of kinds of weights of
    the attention blocks, over all layers, is counted here, and whole blocks of layers: the nearest are named.
    """
    layers = r"down_blocks\.\d|mid_block|up_blocks\.\d"
    inner = r"attn[12]\.to_(?:q|k|v|out\.0)\.(?:weight|bias)|norm[123]\.|proj_(?:in|out)\.|norm\.|ff\."
    sizes: Counter = Counter()
    for name, p in sd15.unet.named_parameters():
        if ".attentions." in name:
            place, rest = re.match(layers, name)[0], name.split(".attentions.")[1]
            sizes[place, re.search(inner, rest)[0]] += p.numel()
    kinds, places = sorted({kind for _, kind in sizes}), sorted({place for place, _ in sizes})
    whole = np.array([sum(sizes[place, kind] for place in places) for kind in kinds])
    every = (np.arange(2 ** len(kinds))[:, None] >> np.arange(len(kinds)) & 1) @ whole
    assert len(kinds) == 17 and not ((every >= 49_050_000) & (every < 49_150_000)).any()
    self_attention, both = (
        np.array([sum(sizes[place, kind] for kind in kinds if kind.startswith(start)) for place in places])
        for start in ("attn1", "attn")
    )
    some = np.arange(2 ** len(places))[:, None] >> np.arange(len(places)) & 1
    for sums in (some @ self_attention, some @ both):
        assert not ((sums >= 49_050_000) & (sums < 49_150_000)).any()
    assert sum(b for b, place in zip(both, places, strict=True) if place.startswith("up")) == 49_042_560, "49.0 M"
    assert self_attention.sum() == 49_574_080


def test_skips_are_traced_where_diffusers_adds_residuals(sd15):
    skips = taps.trace_skips(sd15.unet, 64, 64)
    assert [s[0] for s in skips.values()] == [320] * 4 + [640] * 3 + [1280] * 6
    assert [s[1] for s in skips.values()] == [64] * 3 + [32] * 3 + [16] * 3 + [8] * 4
    assert list(taps.trace_intra(sd15.unet, 64, 64).values()) == [
        (320, 64, 64), (640, 32, 32), (1280, 16, 16), (1280, 8, 8)
    ]  # fmt: skip


def test_unet160_by_its_numbers():
    with torch.device("meta"):
        backbone = ScratchUNet(4, 128)
    blocks = backbone.unet.config.block_out_channels
    assert blocks == (160, 320, 640, 640) and count(backbone) == 142_876_484
    skips = [s for p, s in taps.trace_skips(backbone.unet, 64, 64).items() if p != taps.SKIP_MID]
    for block in backbone.unet.up_blocks:  # every decoder layer takes the skip that the encoder left for it
        for resnet in block.resnets:
            assert resnet.in_channels - skips.pop()[0] in blocks
    assert skips == []


@pytest.mark.parametrize("side", [8, 9, 13, 17])
def test_sides_that_are_no_multiples_of_anything(side):
    """Latents of 13x13 are images of 104x104: not divisible by 64."""
    torch.manual_seed(0)
    backbone = ScratchUNet(4, 16, base=32, multipliers=[1, 2, 2], heads=2)
    shapes = {}

    def record(point, features):
        shapes[point] = tuple(features.shape[1:])
        return features

    x = torch.randn(2, 4, side, side)
    with taps.tapped(backbone.unet, record):
        out = backbone(x, torch.tensor([1, 900]), text_of(2, 16), {})
    assert out.shape == x.shape and out.isfinite().all()
    assert shapes == backbone.shapes(side, side) and shapes["mid"][1] == -(-side // 4)
    residuals = {point: torch.randn(2, *shape) for point, shape in backbone.shapes(side, side).items()}
    assert not torch.allclose(backbone(x, torch.tensor([1, 900]), text_of(2, 16), residuals), out)


def test_it_computes_what_diffusers_computes(sd):
    """With every token seen: our attention processors, hooks and loading change nothing."""
    backbone = StableUNet(4, WIDTH, str(sd)).eval()
    plain = UNet2DConditionModel.from_pretrained(sd, subfolder="unet").eval()
    x, t, text = torch.randn(2, 4, 8, 8), torch.tensor([10, 700]), text_of(2, WIDTH)
    with torch.no_grad():
        ours, theirs = backbone(x, t, text, {}), plain(x, t, text.tokens).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert backbone.source.source == str(sd) and len(backbone.source.sha256) == 64


def test_what_the_denoiser_sees_may_be_more_than_the_captions_own_tokens(sd):
    backbone = StableUNet(4, WIDTH, str(sd)).eval()
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([10]), text_of(1, WIDTH)
    mask = torch.tensor([[True, True, False, False, False]])
    with torch.no_grad():
        everything, some = backbone(x, t, text, {}), backbone(x, t, Text(text.tokens, mask), {})
        attended = backbone(x, t, Text(text.tokens, mask, text.mask), {})
    assert torch.equal(everything, attended) and not torch.allclose(everything, some)


def test_an_inpainting_unet_gets_a_full_mask_and_a_grey_image(tmp_path):
    sd = save_sd(tmp_path / "sd", inpaint=True)
    backbone = StableUNet(4, WIDTH, str(sd), inpaint=True)
    x, grey = torch.randn(2, 4, 8, 8), torch.randn(1, 4, 8, 8)
    backbone.set_full_inpaint_mask(lambda height, width: grey, 64, 64)
    given = backbone.inputs(x)
    assert given.shape == (2, 9, 8, 8) and torch.equal(given[:, :4], x) and (given[:, 4] == 1).all()
    assert torch.equal(given[:, 5:], grey.expand(2, -1, -1, -1)) and "masked_latent" not in backbone.state_dict()
    assert backbone(x, torch.tensor([1, 2]), text_of(2, WIDTH), {}).shape == x.shape


def test_wider_text_as_stable_diffusion_2s(tiny, tmp_path):
    sd = save_sd(tmp_path / "sd", width=64, prediction="v_prediction")
    mine = [word for word in tiny if not word.startswith(("backbone.", "text."))]
    words = ["backbone=sd15", f"backbone.source={sd}", "text=clip", "codec=kl", "diffusion=folder", "hint=lite"]
    parts = assemble(compose_config([*mine, *words]), RunFolder(tmp_path))
    assert parts.diffusion.prediction == "v" and parts.codec.downscale == 8
    model = make_model(parts, "refine")
    batch = collate([parts.examples("train")[0]])
    prediction, _ = model(batch, torch.randn(1, 4, 4, 4), torch.tensor([5]))
    assert prediction.value.shape == (1, 4, 4, 4) and model.text.width == 64


# --- parts that do not go together, and folders that lack something: one line, before any weight is read


@pytest.fixture
def no_weights(monkeypatch):
    """Reading any weight is an error."""

    def refuse(*_, **__):
        raise AssertionError("weights are read")

    monkeypatch.setattr("ragaf_exp.models.loading.hub.load", refuse)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["codec=pixel"], ("4 input", "48 channels", "codec")),
        (["text=tiny"], ("32 channels", "outputs 128")),
        (["text=tiny", "text.width=32"], None),
        (["diffusion=x0"], ("squaredcos_cap_v2", "scaled_linear", "diffusion=folder")),
        (["diffusion=eps"], ("beta_schedule", "diffusion=folder")),
        (["backbone=sd15_inpaint"], ("4 input", "need 9")),
        (["data.size=36"], ("data.size=36", "8")),
        (["backbone.source=nowhere/at/all"], ("nowhere/at/all", "no such folder")),
        (["backbone.source=''"], ("backbone.source", "weights=none")),
        (["text.subfolder=unet"], ("text.source", "model_type=None", "clip")),
        (["text.tokenizer_subfolder=unet"], ("no tokenizer", "text.tokenizer_subfolder")),
        (["text.max_tokens=78"], ("text.max_tokens=78", "77")),
        (["codec.subfolder=scheduler"], ("codec.source", "config.json")),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_the_shapes(words, says, on_sd, no_weights, tmp_path):
    failure = AssertionError if says is None else UserError
    with pytest.raises(failure) as refusal:
        assemble(compose_config([*on_sd, *words]), RunFolder(tmp_path))
    line = str(refusal.value)
    assert "\n" not in line and all(text in line for text in says or ("weights are read",)), line


def damage(folder, how: str) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if how == "no unet":
        shutil.rmtree(folder / "unet")
    elif how == "no weights":
        weights.unlink()
    elif how == "other variant":
        weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    elif how == "cut short":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "no json":
        (folder / "unet" / "config.json").write_text("{")
    elif how == "another network":
        config = json.loads((folder / "unet" / "config.json").read_text())
        (folder / "unet" / "config.json").write_text(json.dumps({**config, "layers_per_block": 2}))
    elif how == "single file":
        shutil.rmtree(folder / "unet")
        (folder / "model.ckpt").write_bytes(b"")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no unet", ("unet/config.json", "text_encoder")), ("no weights", ("holds no weights", "fetch")),
        ("other variant", ("fp16", "backbone.variant")), ("cut short", ("can't be loaded",)),
        ("no json", ("config.json", "damaged")), ("another network", ("fetch it again",)),
        ("single file", ("convert_original_stable_diffusion_to_diffusers",)),
    ],
)  # fmt: skip
def test_missing_and_damaged_parts_of_a_folder_are_reported_in_one_line(how, says, sd, tmp_path):
    folder = shutil.copytree(sd, tmp_path / "sd")
    damage(folder, how)
    with pytest.raises(UserError) as refusal:
        StableUNet(4, WIDTH, str(folder))
    line = str(refusal.value)
    assert "\n" not in line and all(text in line for text in says), line


def test_a_variant_is_read_only_on_request(tmp_path):
    folder = save_sd(tmp_path / "sd", variant="fp16")
    assert StableUNet(4, WIDTH, str(folder), variant="fp16").source.variant == "fp16"


def test_offline_never_touches_the_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("the network is touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="backbone.offline=true.*hf download some/model --revision abc"):
        StableUNet(4, WIDTH, "some/model", revision="abc", offline=True)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(UserError, match="some/model") as refusal:
        StableUNet(4, WIDTH, "some/model")
    assert "\n" not in str(refusal.value)


def test_random_weights_by_a_folders_config_follow_the_seed(sd, no_weights):
    backbones = []
    for _ in range(2):
        torch.manual_seed(3)
        backbones.append(StableUNet(4, WIDTH, str(sd), weights="none"))
    first, second = (backbone.state_dict() for backbone in backbones)
    assert all(torch.equal(first[name], second[name]) for name in first) and backbones[0].source is None
