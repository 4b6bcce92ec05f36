"""Both stages' networks: gradients, gates, masks, and properties of a batch that must not matter."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import init_from_start, make_model
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.resources import CONF
from ragaf_exp.core.types import Batch, Item
from ragaf_exp.data.loader import Preparer, collate
from ragaf_exp.models.backbones import taps
from ragaf_exp.models.codecs.pixel import Pixel
from ragaf_exp.models.conditioning import RegionState
from ragaf_exp.models.regions.fusion import Gated, Hybrid, Learned
from ragaf_exp.models.regions.injection import Injection
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.objective import Objective

STAGES = ("coarse", "refine")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def world(tiny, tmp_path_factory):
    """Everything but the networks."""
    return assemble(compose_config(tiny), RunFolder(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def batch(world) -> Batch:
    return collate([world.examples("train")[i] for i in range(6)])


def opened(model: torch.nn.Module) -> torch.nn.Module:
    """The model with every zero-initialised gate open, so that each path contributes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return model.eval()


@pytest.fixture(scope="module")
def models(world) -> dict[str, torch.nn.Module]:
    """A model of each stage with open gates, for reading only."""
    return {stage: opened(make_model(world, stage)) for stage in STAGES}


def noised(world, batch: Batch, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t (B,C,h,w) and t (B,), of which each row depends on its item alone."""
    x0 = world.codec.encode(batch.image)
    rows = [torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(seed + i)) for i in range(len(batch))]
    t = torch.tensor([100, 300, 500, 700, 900, 999] * len(batch))[: len(batch)]
    return world.diffusion.add_noise(x0, torch.stack(rows), t), t


@torch.no_grad()
def predict(model, batch: Batch, x_t, t, text: bool = True, sketch: bool = True):
    """Prediction and conditioning, each condition given to all items or to none."""
    keep = {name: torch.full((len(batch),), given) for name, given in (("text", text), ("sketch", sketch))}
    return model(batch, x_t, t, keep)


def example_of(world, sketch: np.ndarray, caption: str = "a red circle", key: str = "made"):
    size = world.cfg.data.size
    regions = world.prepare.regions(sketch)
    item = Item(key, np.full((size, size, 3), 128, np.uint8), caption, drawing=sketch)
    return Preparer(lambda image, drawing: drawing, lambda _: regions, world.prepare.graph)(item)


def rings(size: int, count: int) -> np.ndarray:
    """A drawing of `count` squares in a row."""
    sketch = np.zeros((size, size), np.float32)
    for i in range(count):
        a, b = 2 + i * 10, 9 + i * 10
        sketch[a:b, [4, 12]] = 1
        sketch[[a, b], 4:13] = 1
    return sketch


# --- gradients


@pytest.mark.parametrize("stage", STAGES)
def test_every_trained_parameter_gets_a_gradient(stage, world, batch):
    model = make_model(world, stage)
    objective = Objective(world.diffusion)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for seed in range(4):  # what a zero-initialised gate hides, shows once the gates before it have moved
        optimizer.zero_grad()
        x_t, t = noised(world, batch, seed)
        prediction, conditioning = model(batch, x_t, t)
        x0 = world.codec.encode(batch.image)
        loss = objective.denoising(prediction.value, world.diffusion.target(x0, x0, t), t)
        if stage == "refine":
            loss = loss + prediction.region_latent.square().mean()
        loss.backward()
        optimizer.step()
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    without = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9 * largest]
    assert without == []


def test_frozen_stage_1_gets_no_gradient_and_the_region_path_does(world, batch):
    coarse = make_model(world, "coarse")
    model = init_from_start(make_model(world, "refine"), coarse.state_dict(), "frozen")
    prediction, _ = model(batch, *noised(world, batch))
    prediction.value.square().mean().backward()
    for name, parameter in model.named_parameters():
        ours = name.startswith(("ragaf.", "injection.", "region_latent."))
        assert parameter.requires_grad == ours
        assert ours or parameter.grad is None
    assert any(p.grad is not None and p.grad.any() for p in model.injection.parameters())


# --- gates at zero


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("injection", sorted(p.stem for p in (CONF / "injection").glob("*.yaml")))
def test_fresh_gates_leave_stage_1_as_it_is_to_the_bit(injection, precision, tiny, world, batch):
    cfg = compose_config([*tiny, f"injection={injection}"])
    parts = replace(world, cfg=cfg)
    coarse = opened(make_model(parts, "coarse"))
    refine = init_from_start(make_model(parts, "refine"), coarse.state_dict(), "full").eval()
    x_t, t = noised(world, batch)
    for text, sketch in ((True, True), (False, True), (True, False), (False, False)):
        with Compute("cpu", precision):
            one, _ = predict(coarse, batch, x_t, t, text, sketch)
            two, conditioning = predict(refine, batch, x_t, t, text, sketch)
        assert conditioning.regions is not None and one.value.any()
        assert torch.equal(one.value, two.value)


def test_open_gates_do_change_stage_1(world, batch, models):
    refine = models["refine"]
    coarse = make_model(world, "coarse").eval()
    own = {k: v for k, v in refine.state_dict().items() if k in coarse.state_dict()}
    coarse.load_state_dict(own)
    x_t, t = noised(world, batch)
    assert not torch.allclose(predict(coarse, batch, x_t, t)[0].value, predict(refine, batch, x_t, t)[0].value)


# --- what must not matter


def padded(batch: Batch, extra: int, filling: float) -> Batch:
    """The batch with room for `extra` more regions, which are none."""
    n = batch.nodes.shape[1]
    rows = torch.nn.functional.pad
    edges = torch.full((*batch.edges.shape[:1], n + extra, n + extra, batch.edges.shape[-1]), filling)
    edges[:, :n, :n] = batch.edges
    return replace(
        batch,
        nodes=rows(batch.nodes, (0, 0, 0, extra), value=filling),
        node_mask=rows(batch.node_mask, (0, extra)),
        edges=edges,
        edge_mask=rows(batch.edge_mask, (0, extra, 0, extra)),
    )


@pytest.mark.parametrize(("extra", "filling"), [(1, 0.0), (5, 0.0), (3, 7.0)])
def test_padded_regions_change_nothing(extra, filling, world, batch, models):
    x_t, t = noised(world, batch)
    n = batch.nodes.shape[1]
    plain, known = predict(models["refine"], batch, x_t, t)
    more, conditioning = predict(models["refine"], padded(batch, extra, filling), x_t, t)
    torch.testing.assert_close(more.value, plain.value, **CLOSE)
    torch.testing.assert_close(more.region_latent[:, :n], plain.region_latent, **CLOSE)
    torch.testing.assert_close(conditioning.regions.region_text[:, :n], known.regions.region_text, **CLOSE)
    assert not conditioning.regions.region_text[:, n:].any()


def test_the_order_of_regions_does_not_matter(world, batch, models):
    x_t, t = noised(world, batch)
    n = batch.nodes.shape[1]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    place = order.argsort()  # old index -> new index
    mixed = replace(
        batch,
        labels=torch.where(batch.labels >= 0, place[batch.labels.clamp(min=0)], -1),
        nodes=batch.nodes[:, order], node_mask=batch.node_mask[:, order],
        edges=batch.edges[:, order][:, :, order], edge_mask=batch.edge_mask[:, order][:, :, order],
    )  # fmt: skip
    plain, known = predict(models["refine"], batch, x_t, t)
    other, conditioning = predict(models["refine"], mixed, x_t, t)
    torch.testing.assert_close(other.value, plain.value, **CLOSE)
    torch.testing.assert_close(other.region_latent, plain.region_latent[:, order], **CLOSE)
    torch.testing.assert_close(other.fusion, plain.fusion[:, order], **CLOSE)
    torch.testing.assert_close(conditioning.regions.region_text, known.regions.region_text[:, order], **CLOSE)


def test_edges_and_neighbours_do_matter(world, batch, models):
    x_t, t = noised(world, batch)
    plain, _ = predict(models["refine"], batch, x_t, t)
    for change in ({"edge_mask": torch.zeros_like(batch.edge_mask)}, {"edges": batch.edges + 1}):
        assert not torch.allclose(predict(models["refine"], replace(batch, **change), x_t, t)[0].value, plain.value)


@pytest.mark.parametrize("stage", STAGES)
def test_an_item_does_not_see_its_batch(stage, world, batch, models):
    """Other items have longer captions and more regions: padding on both sides."""
    x_t, t = noised(world, batch)
    together, _ = predict(models[stage], batch, x_t, t)
    for i in range(len(batch)):
        row = slice(i, i + 1)
        alone = collate([world.examples("train")[i]])
        torch.testing.assert_close(predict(models[stage], alone, x_t[row], t[row])[0].value, together.value[row], **CLOSE)


def test_sketches_without_regions_with_one_and_with_many(world, models):
    size = world.cfg.data.size
    black, blank = np.ones((size, size), np.float32), np.zeros((size, size), np.float32)
    examples = [example_of(world, s) for s in (black, blank, rings(size, 1), rings(size, 3))]
    assert [e.regions.count for e in examples] == [0, 1, 2, 4]
    batch = collate(examples)
    x_t, t = noised(world, batch)
    for stage in STAGES:
        together, _ = predict(models[stage], batch, x_t, t)
        assert together.value.isfinite().all()
        for i, example in enumerate(examples):
            row = slice(i, i + 1)
            alone, conditioning = predict(models[stage], collate([example]), x_t[row], t[row])
            torch.testing.assert_close(alone.value, together.value[row], **CLOSE)
            if stage == "refine":
                assert int(conditioning.regions.region_mask.sum()) == example.regions.count
                assert alone.region_latent.isfinite().all() and alone.fusion.isfinite().all()


def test_no_region_at_all_trains(world):
    black = np.ones((world.cfg.data.size,) * 2, np.float32)
    batch = collate([example_of(world, black)] * 2)
    model = make_model(world, "refine")
    prediction, conditioning = model(batch, *noised(world, batch))
    losses = prediction.value.square().mean() + prediction.region_latent.square().mean()
    losses.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# --- captions and sketches, given and dropped


@pytest.mark.parametrize("stage", STAGES)
def test_a_dropped_caption_is_an_empty_one(stage, world, batch, models):
    x_t, t = noised(world, batch)
    empty = replace(batch, captions=[""] * len(batch))
    dropped, conditioning = predict(models[stage], batch, x_t, t, text=False)
    written, known = predict(models[stage], empty, x_t, t)
    torch.testing.assert_close(dropped.value, written.value, **CLOSE)
    assert conditioning.text.mask.sum() == known.text.mask.sum() == len(batch), "only the token that opens a caption"
    assert not torch.allclose(predict(models[stage], batch, x_t, t)[0].value, written.value)


@pytest.mark.parametrize("stage", STAGES)
def test_a_dropped_sketch_leaves_no_trace(stage, world, batch, models):
    x_t, t = noised(world, batch)
    fields = ("sketch", "labels", "nodes", "node_mask", "edges", "edge_mask")
    other = replace(batch, **{name: getattr(batch, name).roll(1, 0) for name in fields})
    given = [predict(models[stage], b, x_t, t)[0].value for b in (batch, other)]
    dropped = [predict(models[stage], b, x_t, t, sketch=False)[0].value for b in (batch, other)]
    assert not torch.allclose(*given)
    torch.testing.assert_close(*dropped, **CLOSE)


def test_conditions_are_dropped_item_by_item(world, batch, models):
    x_t, t = noised(world, batch)
    keep = torch.arange(len(batch)) % 2 == 0
    with torch.no_grad():
        mixed, _ = models["refine"](batch, x_t, t, {"text": keep, "sketch": keep})
    given, _ = predict(models["refine"], batch, x_t, t)
    dropped, _ = predict(models["refine"], batch, x_t, t, text=False, sketch=False)
    torch.testing.assert_close(mixed.value[keep], given.value[keep], **CLOSE)
    torch.testing.assert_close(mixed.value[~keep], dropped.value[~keep], **CLOSE)


def test_a_caption_over_the_limit_is_cut_and_the_place_named(world, models, caplog):
    encoder = models["coarse"].text
    words = " ".join(["red"] * encoder.max_tokens)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        long = encoder([words + " and a blue star"])
    assert long.tokens.shape[1] == encoder.max_tokens and long.mask.all()
    assert len(encoder.token_spans(words)) == encoder.max_tokens
    (warning,) = [r.getMessage() for r in caplog.records]
    assert f"text.max_tokens={encoder.max_tokens}" in warning and "red and a blue star" in warning
    with torch.no_grad():
        torch.testing.assert_close(encoder([words]).tokens, long.tokens, **CLOSE)


@pytest.mark.parametrize("caption", ["", "   ", "\n", "日本語 🎈", "a" * 5000, "[PAD] [START] [UNK]", "\x00"])
def test_any_string_is_a_caption(caption, models):
    encoder = models["coarse"].text
    with torch.no_grad():
        text = encoder([caption, "a red circle"])
    assert text.tokens.isfinite().all() and text.mask[:, 0].all()
    spans = encoder.token_spans(caption)
    assert len(spans) == int(text.mask[0].sum()) and all(0 <= a <= b <= len(caption) for a, b in spans)


# --- bf16


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_is_close_to_fp32_and_trains(stage, world, batch, models):
    x_t, t = noised(world, batch)
    exact, _ = predict(models[stage], batch, x_t, t)
    with Compute("cpu", "bf16"):
        rough, _ = predict(models[stage], batch, x_t, t)
    scale = float(exact.value.std())
    assert float((rough.value.float() - exact.value).abs().mean()) < 0.03 * scale
    model = opened(make_model(world, stage)).train()
    with Compute("cpu", "bf16"):
        prediction, _ = model(batch, x_t, t)
        loss = prediction.value.float().square().mean()
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# --- parts


@pytest.mark.parametrize("option", sorted(p.stem for p in (CONF / "fusion").glob("*.yaml")))
def test_fusion_weights(option, tiny, world):
    model = make_model(replace(world, cfg=compose_config([*tiny, f"fusion={option}"])), "refine")
    t = torch.tensor([0.0, 0.5, 1.0])
    weights = model.ragaf.fusion(t, torch.randn(3, 4, model.ragaf.width))
    each = (model.ragaf.width,) if option == "gated" else ()
    assert weights.shape == (3, 4, 2, *each) and (weights >= 0).all() and (weights <= 1).all()
    torch.testing.assert_close(weights.sum(2), torch.full((3, 4, *each), 2.0 if option == "none" else 1.0))
    sketch = weights[:, 0, 0]
    if option in ("heuristic", "cosine", "hybrid"):
        assert sketch[0] < sketch[1] < sketch[2], "structure early, semantics late"
    if option in ("learned", "learned_global", "gated"):
        torch.testing.assert_close(weights, torch.full_like(weights, 0.5))


@pytest.mark.parametrize("per_region", [True, False])
@pytest.mark.parametrize("kind", [Learned, Hybrid, Gated])
def test_learned_fusion_depends_on_timestep_and_region(kind, per_region):
    fusion = opened(kind(16, per_region=per_region))
    regions = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1)
    with torch.no_grad():
        weights = fusion(torch.tensor([0.1, 0.9]), regions)
    assert weights.shape[:3] == (2, 3, 2)
    assert not torch.allclose(weights[0], weights[1])
    assert torch.equal(weights[0, 0], weights[0, 1]) != per_region
    torch.testing.assert_close(weights.sum(2), torch.ones_like(weights.sum(2)))


def test_a_hybrid_fusion_is_half_the_hand_over_at_first_and_can_become_all_of_it():
    fusion, t, regions = Hybrid(16, low=0.2, high=0.8), torch.tensor([0.0, 1.0]), torch.randn(2, 3, 16)
    assert fusion(t, regions)[:, 0, 0].tolist() == pytest.approx([0.35, 0.65])
    with torch.no_grad():
        fusion.out.bias[2] = -30
    assert fusion(t, regions)[:, 0, 0].tolist() == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_the_pixel_codec_loses_nothing(patch):
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    codec = Pixel(patch)
    latent = codec.encode(image)
    assert latent.shape == (2, codec.channels, 16 // patch, 16 // patch)
    assert torch.equal(codec.decode(latent), image)
    assert codec.decode(latent * 9).abs().max() <= 1


def test_traced_shapes_are_those_of_a_real_pass(world, batch, models):
    unet = models["coarse"].backbone.unet
    shapes = {}

    def record(point, features):
        shapes[point] = tuple(features.shape[1:])
        return features

    x_t, t = noised(world, batch)
    with taps.tapped(unet, record):
        predict(models["coarse"], batch, x_t, t)
    assert shapes == taps.trace(unet, *x_t.shape[2:])
    assert not any(module._forward_hooks for module in unet.modules()), "tapped leaves no hook behind"


def test_the_word_bias_is_highest_for_a_regions_own_word():
    """Two regions, left and right, each of which read one of two words; a pixel of neither has no bias."""
    injection = Injection({"mid": (8, 2, 3)}, width=4, cross_layers=1, points=["mid"], words=True)
    masks = torch.zeros(1, 2, 2, 3)
    masks[0, 0, :, 0] = masks[0, 1, :, 1] = 1
    region_text = torch.tensor([[[0.1, 0.9, 0.0], [0.1, 0.0, 0.9]]])
    state = RegionState(masks, masks, region_text, torch.ones(1, 2, dtype=torch.bool), {(2, 3): masks})
    log_map = injection.words(state).log_map[6].view(2, 3, 3)
    left, right, meta_device = log_map[0]
    assert left.argmax() == 1 and right.argmax() == 2 and left[1] == right[2] == 0
    assert left[2] < -5 and right[1] < -5 and not meta_device.any()
