"""Images that are not square: every part of both stages takes latents of any height and width."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tiny_sd import WIDTH, controlnet, save_sd

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.types import Batch, Example, Item
from ragaf_exp.data.fit import fit_drawing, fit_image
from ragaf_exp.data.loader import collate
from ragaf_exp.inference.attention_recorder import record_attention
from ragaf_exp.inference.load import make_pipeline
from ragaf_exp.models.backbones.stable_diffusion import StableUNet
from ragaf_exp.models.backbones.unet import TinyUNet
from ragaf_exp.models.codecs.autoencoder import KL, Taesd
from ragaf_exp.models.codecs.pixel import Pixel
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.control.lite import LiteHint
from ragaf_exp.models.control.t2i_adapter import T2IHint
from ragaf_exp.plan.dummies import largest_batch
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.condition_usage import condition_usage
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.setup import settings_of
from ragaf_exp.training.step_noise import sample_step_noise, x_start
from ragaf_exp.viz.attention_steps import save_attention
from ragaf_exp.viz.panels import panels, validation_grid

SIZES = [(64, 96), (96, 64), (64, 16)]  # the last is one token wide at the coarsest level
INJECTIONS = ("film", "cross", "words", "appended")  # and `multiscale`, which the tests below take


def open_gates(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return model.eval()


def world_of(tiny: list[str], folder, *overrides: str):
    return assemble(compose_config([*tiny, *overrides]), RunFolder(folder))


@pytest.fixture(scope="module")
def world(tiny, tmp_path_factory):
    return world_of(tiny, tmp_path_factory.mktemp("world"), "ragaf.pooled_levels=2")


def example(world, height: int, width: int, key: str = "one") -> Example:
    """A disc in the upper half and a box in the lower half of the image."""
    sketch, image = np.zeros((height, width), np.float32), np.full((height, width, 3), 200, np.uint8)
    radius = min(height // 2, width) // 3
    cv2.circle(sketch, (width // 2, height // 4), radius, 1.0, 1)
    corners = (width // 2 - radius, 3 * height // 4 - radius), (width // 2 + radius, 3 * height // 4 + radius)
    cv2.rectangle(sketch, *corners, 1.0, 1)
    item = Item(key, image, "a red circle above a blue square", sketch)
    return world.prepare.from_sketch(item, sketch)


def batch_of(world, size: tuple[int, int]) -> Batch:
    return collate([example(world, *size, key) for key in ("one", "two")])


def noised(world, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    shape = world.codec.latent_shape(batch)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.tensor([300, 900])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_a_network_traced_at_another_size_computes_the_same(tiny, tmp_path, monkeypatch, injection, size):
    """The model of square images, and one whose injection points were traced at this size, agree to the bit."""
    world = world_of(tiny, tmp_path, f"injection={injection}", "ragaf.pooled_levels=2")
    batch = batch_of(world, size)
    square = open_gates(make_model(world, "refine"))
    shapes = square.backbone.shapes(size[0] // 4, size[1] // 4)
    monkeypatch.setattr(TinyUNet, "shapes", lambda self, height, width: shapes)
    traced = make_model(world, "refine").eval()
    traced.load_state_dict(square.state_dict())
    monkeypatch.undo()
    x_t, t = noised(world, batch)
    (ours, state), (theirs, _) = square(batch, x_t, t), traced(batch, x_t, t)
    assert ours.value.shape == x_t.shape and ours.value.isfinite().all()
    assert torch.equal(ours.value, theirs.value)
    assert {s[1:] for s in shapes.values()} == set(state.region_state.soft_masks)


@torch.no_grad()
def test_square_images_take_no_detour(world):
    model = open_gates(make_model(world, "refine"))
    assert model.condition(batch_of(world, (32, 32))).region_state.sizes == {} and model.other_sizes == {}


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_regions_act_where_they_are(world, size):
    """A change of one region's token changes the network's features in that region alone, at full resolution."""
    model, batch = open_gates(make_model(world, "refine")), batch_of(world, size)
    state = model.condition(batch).region_state
    tokens, _ = model.ragaf.fuse(state, torch.tensor([0.3, 0.3]))
    disc = int(batch.labels[0, size[0] // 4, size[1] // 2])
    other = tokens.clone()
    other[0, disc] += 1
    before, after = (model.injection(x, state, {}).residuals["out"] for x in (tokens, other))
    changed = (before != after).any(1)[0]
    assert changed.any() and torch.equal(changed, batch.labels[0] == disc)


@torch.no_grad()
def test_stage_2_with_closed_gates_is_stage_1_at_any_size(world):
    coarse, refine = make_model(world, "coarse").eval(), make_model(world, "refine").eval()
    refine.load_state_dict(coarse.state_dict(), strict=False)
    for size in SIZES:
        batch = batch_of(world, size)
        x_t, t = noised(world, batch)
        assert torch.equal(coarse(batch, x_t, t)[0].value, refine(batch, x_t, t)[0].value)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1, 2])
def test_both_stages_sample_and_show_any_size(world, size, scale, tmp_path):
    compute = Compute("cpu", "no")
    models = [open_gates(make_model(world, stage)) for stage in ("coarse", "refine")]
    cfg = OmegaConf.merge(world.cfg, {"stage": {"coarse": {"scale": scale}}})
    pipeline = make_pipeline(cfg, world, dict(zip(("coarse", "refine"), models, strict=True)), compute)
    rows = [example(world, *size, key) for key in ("one", "two")]
    with record_attention(models[1], world.diffusion) as recorder:
        sampled = pipeline(collate(rows)).to_images()
    assert sampled.images["stage1"].shape == sampled.images["stage2"].shape == (2, *size, 3)
    shown = panels(rows[0], sampled, 0, models[1].text, world.task.panels)
    assert shown["regions"].shape[0] * size[1] == shown["regions"].shape[1] * size[0]
    assert validation_grid(rows, sampled, world.task.panels).ndim == 3
    save_attention(tmp_path, rows[0], recorder.frames(), 0, models[1].text, world.codec)
    assert (tmp_path / "attention_steps.png").is_file()


def test_the_losses_take_any_size(world, tiny):
    cfg = compose_config([*tiny, "loss=all_targets"])
    parts = replace(world, cfg=cfg)
    model, objective = make_model(parts, "refine"), Objective(world.diffusion, settings_of(cfg)["loss"])
    for size in SIZES:
        batch = batch_of(world, size)
        noise = sample_step_noise(world.diffusion, world.codec.latent_shape(batch), 900, world.task.dropout, 1.0, rng())
        x_0 = world.codec.encode(batch.image)
        losses = objective(model, batch, x_0, noise, start=x_start(x_0, batch, noise))
        assert {"diffusion", "region_latent", "region_moments", "region_texture"} <= set(losses)
        assert all(value.isfinite() for value in losses.values())
        assert len(condition_usage(model, objective, world.codec, [batch], 900, 0, world.task.conditions)) == 4


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return StableUNet(4, WIDTH, str(save_sd(tmp_path_factory.mktemp("sd") / "sd"))).eval()


@pytest.mark.parametrize("kind", [LiteHint, controlnet, T2IHint])
@pytest.mark.parametrize("size", [(64, 128), (128, 64), (64, 16)])
@torch.no_grad()
def test_hints_give_residuals_of_the_networks_shapes(sd, kind, size):
    h, w = size[0] // 8, size[1] // 8
    hint = LiteHint(sd.shapes(8, 8), 8, 16) if kind is LiteHint else kind(sd, 8, 8)
    hint = open_gates(hint)
    x, t, text = torch.randn(2, 4, h, w), torch.tensor([3, 800]), Text(torch.randn(2, 5, WIDTH), torch.ones(2, 5) > 0)
    features = hint.features(torch.rand(2, 1, *size).round())
    assert set(hint.resolutions(h, w)) <= set(features)
    residuals = hint.at(hint(features, torch.tensor([True, True])), x, t, text)
    known = sd.shapes(h, w) | sd.skip_shapes(h, w) | sd.intra_shapes(h, w)
    assert {point: tuple(value.shape[1:]) for point, value in residuals.items()} == {p: known[p] for p in residuals}
    out = sd(x, t, text, residuals)
    assert out.shape == x.shape and not torch.allclose(out, sd(x, t, text, {}))


@torch.no_grad()
def test_an_inpainting_unet_encodes_a_grey_image_of_each_size_once(tmp_path):
    backbone = StableUNet(4, WIDTH, str(save_sd(tmp_path / "sd", inpaint=True)), inpaint=True)
    made = []

    def blank(height: int, width: int) -> torch.Tensor:
        made.append((height, width))
        return torch.full((1, 4, height // 8, width // 8), height / width)

    backbone.set_full_inpaint_mask(blank, 64, 64)
    for h, w in ((8, 8), (8, 12), (8, 12), (8, 8), (12, 8)):
        given = backbone.inputs(torch.randn(2, 4, h, w))
        assert given.shape == (2, 9, h, w) and (given[:, 5:] == h / w).all()
    assert made == [(64, 64), (64, 96), (96, 64)]


@pytest.mark.parametrize("codec", [Pixel(4), KL(weights="none"), Taesd(weights="none")], ids=["pixel", "kl", "taesd"])
def test_codecs_encode_decode_and_blank(codec):
    batch = largest_batch(1, 64, 1, width=96)
    latent = codec.encode(batch.image)
    assert latent.shape == codec.latent_shape(batch) == (1, codec.channels, 64 // codec.downscale, 96 // codec.downscale)
    assert codec.decode(latent).shape == batch.image.shape
    assert torch.allclose(codec.blank(64, 96), latent, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (8, 40), 48])
@pytest.mark.parametrize("shape", [(100, 100), (50, 211), (300, 77)])
def test_pictures_are_fitted_to_rectangles(size, shape):
    height, width = (size, size) if isinstance(size, int) else size
    image = np.full((*shape, 3), 9, np.uint8)
    image[0] = image[-1] = 200  # what a crop cuts off at the top and the bottom, or at the sides, is equal
    for fit in ("crop", "pad"):
        assert fit_image(image, size, fit).shape == (height, width, 3)
        strokes = np.zeros(shape, np.float32)
        strokes[shape[0] // 2 - 1 : shape[0] // 2 + 1] = 1  # a line through the middle
        fitted = fit_drawing(strokes, size, fit)
        assert fitted.shape == (height, width) and fitted.dtype == np.float32
        rows = np.flatnonzero(fitted.max(1) > 0.5)
        assert abs(rows.mean() - (height - 1) / 2) <= 0.5, "the middle stays in the middle"
        columns = np.flatnonzero(fitted.max(0) > 0.2)
        share = len(columns) / width
        full = shape[1] / shape[0] >= width / height or fit == "crop"
        assert full == (share > 0.98)
