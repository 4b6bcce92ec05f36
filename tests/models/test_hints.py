"""ControlNet and T2I-Adapter: where their residuals land, what stage 2 leaves of them, what does not fit."""

from __future__ import annotations

import pytest
import torch
from diffusers import ControlNetModel, T2IAdapter, UNet2DConditionModel
from tiny_sd import WIDTH, controlnet, save_sd, unet

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.stable_diffusion import StableUNet
from ragaf_exp.models.backbones.unet import TinyUNet
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.control.t2i_adapter import T2IHint

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return save_sd(tmp_path_factory.mktemp("sd") / "sd")


@pytest.fixture(scope="module")
def backbone(sd):
    return StableUNet(4, WIDTH, str(sd)).eval()


@pytest.fixture(scope="module")
def plain(sd):
    """The backbone's UNet, loaded by diffusers."""
    return UNet2DConditionModel.from_pretrained(sd, subfolder="unet").eval()


@pytest.fixture
def given():
    """x_t, t, text, sketch and who keeps it."""
    torch.manual_seed(5)
    text = Text(torch.randn(2, 5, WIDTH), torch.ones(2, 5, dtype=torch.bool))
    sketch, keep = torch.rand(2, 1, 64, 64).round(), torch.tensor([True, True])
    return torch.randn(2, 4, 8, 8), torch.tensor([30, 800]), text, sketch, keep


def open_gates(module):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return module.eval()


def residuals(hint, x, t, text, sketch, keep):
    return hint.at(hint(hint.features(sketch), keep), x, t, text)


@torch.no_grad()
def test_a_controlnet_lands_where_diffusers_puts_it(backbone, plain, given, tmp_path):
    hint = open_gates(controlnet(backbone, 8, 8))
    x, t, text, sketch, keep = given
    hint.net.save_pretrained(tmp_path)  # in diffusers' layout
    theirs = ControlNetModel.from_pretrained(tmp_path).eval()
    skips, middle = theirs(x, t, text.tokens, sketch.expand(-1, 3, -1, -1), return_dict=False)
    wanted = plain(
        x, t, text.tokens, down_block_additional_residuals=skips, mid_block_additional_residual=middle
    ).sample  # fmt: skip
    prediction = backbone(x, t, text, residuals(hint, *given))
    torch.testing.assert_close(prediction, wanted, **CLOSE)
    assert not torch.allclose(prediction, plain(x, t, text.tokens).sample, **CLOSE)
    assert hint.features(sketch)[8, 8].shape == (2, hint.width, 8, 8) and hint.features(sketch)[8, 8].any()
    again = controlnet(backbone, 8, 8, str(tmp_path))
    assert again.source is not None
    torch.testing.assert_close(backbone(x, t, text, residuals(again.eval(), *given)), wanted, **CLOSE)


@torch.no_grad()
def test_a_fresh_controlnet_adds_nothing_and_copies_the_unet(backbone, plain, given):
    hint = controlnet(backbone, 8, 8).eval()
    x, t, text, *_ = given
    assert torch.equal(hint.net.conv_in.weight, backbone.unet.conv_in.weight)
    torch.testing.assert_close(backbone(x, t, text, residuals(hint, *given)), plain(x, t, text.tokens).sample, **CLOSE)


@torch.no_grad()
def test_an_adapter_lands_where_diffusers_puts_it(backbone, plain, given, tmp_path):
    hint = T2IHint(backbone, 8, 8).eval()
    x, t, text, sketch, keep = given
    hint.net.save_pretrained(tmp_path)
    theirs = T2IAdapter.from_pretrained(tmp_path).eval()(sketch)
    wanted = plain(x, t, text.tokens, down_intrablock_additional_residuals=theirs).sample
    prediction = backbone(x, t, text, residuals(hint, *given))
    torch.testing.assert_close(prediction, wanted, **CLOSE)
    assert not torch.allclose(prediction, plain(x, t, text.tokens).sample, **CLOSE)
    # what regions add to a block's output stays out of its skip connections, with and without an adapter
    zeros = {point: torch.zeros(2, *shape) for point, shape in backbone.shapes(8, 8).items()}
    assert torch.equal(backbone(x, t, text, residuals(hint, *given) | zeros), prediction)
    assert hint.features(sketch)[8, 8].shape == (2, hint.width, 8, 8)


@torch.no_grad()
def test_the_adapter_for_a_first_level_without_attention(given):
    """Stable Diffusion XL and the embedded UNet have one; diffusers adds its features after that level's downsampling."""
    x, t, _, sketch, keep = given
    text = Text(torch.randn(2, 5, WIDTH), torch.ones(2, 5, dtype=torch.bool))
    embedded = TinyUNet(4, WIDTH, 8, widths=[32, 64], head_width=0).eval()
    with pytest.raises(UserError, match=r"\(32, 8, 8\).*takes \(32, 4, 4\)"):
        T2IHint(embedded, 8, 8)
    hint = T2IHint(embedded, 8, 8, kind="full_adapter_xl").eval()
    ghost = UNet2DConditionModel.from_config(embedded.unet.config).eval()
    ghost.load_state_dict(embedded.unet.state_dict())
    wanted = ghost(x, t, text.tokens, down_intrablock_additional_residuals=hint.net(sketch)).sample
    prediction = embedded(x, t, text, residuals(hint, x, t, text, sketch, keep))
    torch.testing.assert_close(prediction, wanted, **CLOSE)
    assert not torch.allclose(prediction, ghost(x, t, text.tokens).sample, **CLOSE)
    assert hint.features(sketch)[8, 8].shape == (2, hint.width, 8, 8)


@torch.no_grad()
@pytest.mark.parametrize("kind", [controlnet, T2IHint])
def test_a_dropped_sketch_leaves_the_unet_alone(kind, backbone, given):
    hint = open_gates(kind(backbone, 8, 8))
    x, t, text, sketch, _ = given
    keep = torch.tensor([True, False])
    prediction = backbone(x, t, text, residuals(hint, x, t, text, sketch, keep))
    alone = backbone(x, t, text, {})
    torch.testing.assert_close(prediction[1], alone[1], **CLOSE)
    assert not torch.allclose(prediction[0], alone[0], **CLOSE)


@torch.no_grad()
def test_a_controlnet_does_not_read_padding(backbone, given):
    hint = open_gates(controlnet(backbone, 8, 8))
    x, t, text, sketch, keep = given
    mask = text.mask.clone()
    mask[:, 3:] = False
    noise = torch.cat([text.tokens[:, :3], torch.randn(2, 2, WIDTH)], 1)
    one = residuals(hint, x, t, Text(text.tokens, mask), sketch, keep)
    two = residuals(hint, x, t, Text(noise, mask), sketch, keep)
    attended = residuals(hint, x, t, Text(noise, mask, text.mask), sketch, keep)
    for point in one:
        torch.testing.assert_close(one[point], two[point], **CLOSE)
    assert not torch.allclose(attended["skip.mid"], two["skip.mid"], **CLOSE)


@pytest.mark.parametrize("side", [9, 13])
@pytest.mark.parametrize("kind", [controlnet, T2IHint])
def test_any_size(kind, side, backbone):
    hint = kind(backbone, side, 8)
    text = Text(torch.randn(1, 3, WIDTH), torch.ones(1, 3, dtype=torch.bool))
    x, sketch = torch.randn(1, 4, side, side), torch.rand(1, 1, side * 8, side * 8)
    out = backbone(x, torch.tensor([3]), text, residuals(hint, x, torch.tensor([3]), text, sketch, torch.tensor([True])))
    assert out.shape == x.shape and out.isfinite().all()


def test_what_does_not_fit_is_refused_with_the_shapes(backbone, tmp_path):
    wider = UNet2DConditionModel.from_config({**unet().config, "block_out_channels": (64, 64)})
    ControlNetModel.from_unet(wider).save_pretrained(tmp_path / "control")
    T2IAdapter(in_channels=1, channels=[64, 64], num_res_blocks=1, downscale_factor=8).save_pretrained(tmp_path / "t2i")
    for call in (lambda: controlnet(backbone, 8, 8, str(tmp_path / "control")),
                 lambda: T2IHint(backbone, 8, 8, str(tmp_path / "t2i"))):  # fmt: skip
        with pytest.raises(UserError, match=r"hint\.source=.*\(64, 8, 8\).*\(32, 8, 8\)"), torch.device("meta"):
            call()
    with pytest.raises(UserError, match=r"hint\.channels"):
        controlnet(backbone, 16, 4)


def test_stable_diffusions_controlnet_by_its_numbers():
    with torch.device("meta"):
        net = controlnet(StableUNet(4, 768, weights="none"), 64, 8).net
    assert sum(p.numel() for p in net.parameters()) == 361_279_120, "361 M, as the published one's"


def test_more_heads_than_channels_are_refused():
    with pytest.raises(UserError, match=r"backbone\.heads=128: must be at most the attention layers' channels, \[64\]"):
        TinyUNet(4, WIDTH, 8, widths=[32, 64], heads=128, head_width=0)
