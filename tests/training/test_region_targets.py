"""Predictions of region tokens about x0 in their regions: means, low frequencies, texture, each with its weight."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.assembly.model import make_model
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Loss
from ragaf_exp.core.randomness import generator
from ragaf_exp.data.loader import collate
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.experiments.training import Training
from ragaf_exp.models.regions.targets import TARGETS, mean, moments, target_sizes, texture
from ragaf_exp.regions.soft_masks import soft_masks
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.losses.region_targets import target_losses
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.setup import plan
from ragaf_exp.training.step_noise import sample_step_noise

NAMES = list(TARGETS)


def whole(*size: int) -> torch.Tensor:
    """One region that covers everything."""
    return torch.ones(1, 1, *size)


def test_the_mean_is_over_each_region_and_padding_has_no_effect():
    x0 = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    masks = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.5, 0.5]], [[0.0, 0.0], [0.0, 0.0]]]])
    right = torch.tensor([[[2.0], [6.0], [123.0]]])  # the third is padding

    def loss(output: torch.Tensor, real: list[bool]) -> float:
        return float(target_losses(output, {"region_latent": 1}, masks, torch.tensor([real]), x0)["region_latent"])

    assert loss(right, [True, True, False]) == 0
    assert loss(right + 2, [True, True, False]) == pytest.approx(4)
    assert loss(right, [False, False, False]) == 0, "no region at all is no NaN"


def test_moments_show_on_which_side_a_region_is_bright():
    across = torch.linspace(-1, 1, 8).expand(1, 1, 8, 8)
    u, v, uu, uv, vv = moments(across, whole(8, 8))[0, 0]
    assert u > 0.5 and max(abs(v), abs(uu), abs(uv), abs(vv)) < 1e-5
    torch.testing.assert_close(moments(across.mT, whole(8, 8))[0, 0, :2], torch.stack([v, u]))
    bowl = moments(across.square(), whole(8, 8))[0, 0]
    assert bowl[2] > 0.2 and bowl[4] < bowl[2] and abs(bowl[0]) < 1e-5
    corners = moments(across * across.mT, whole(8, 8))[0, 0]
    assert corners[3] > 0.3 and corners[[0, 1, 2, 4]].abs().max() < 1e-5


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 5), st.integers(0, 5), st.floats(-2, 2))
def test_moments_do_not_depend_on_the_regions_place(row, column, level):
    patch = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    result = []
    for top, left in ((0, 0), (row, column)):
        x0, masks = torch.full((1, 1, 9, 9), level), torch.zeros(1, 1, 9, 9)
        x0[..., top : top + 4, left : left + 4] = patch
        masks[..., top : top + 4, left : left + 4] = 1
        result.append(moments(x0, masks))
    torch.testing.assert_close(*result, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 5))
def test_texture_distinguishes_stripes_from_plain_at_any_phase(phase):
    columns = torch.arange(12) + phase
    stripes = torch.where(columns % 6 < 3, 1.0, -1.0).expand(1, 1, 12, 12)
    deviation, right, down = texture(stripes, whole(12, 12))[0, 0]
    assert deviation == pytest.approx(1) and down == 0
    assert right == pytest.approx(2 * math.sqrt(4 / 11), rel=0.16)  # 3 or 4 edges between 12 columns
    torch.testing.assert_close(texture(stripes.mT, whole(12, 12))[0, 0], torch.stack([deviation, down, right]))
    assert texture(torch.full((1, 1, 12, 12), 0.7), whole(12, 12)).abs().max() < 5e-3


def test_the_texture_of_a_plain_region_does_not_see_its_neighbour_through_border_cells():
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    labels[:, 6:26, 6:26] = 1  # its edge cuts cells of 4 pixels in half
    image = torch.where(labels == 1, 1.0, -1.0)[:, None]
    x0 = torch.nn.functional.pixel_unshuffle(image, 4)
    result = texture(x0, soft_masks(labels, 2, (8, 8)))
    assert result[0, 1].max() < 0.2, "the contrast itself is 2"


@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_finite_of_its_size_and_of_its_region_alone(name):
    target = TARGETS[name]
    x0 = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 4, 8, 8)
    masks[:, 0, :4], masks[:, 1, 6:, 6:], masks[:, 2, 5, 0] = 1, 0.4, 0.01  # and the last is padding
    result = target.of(x0, masks)
    assert result.shape == (2, 4, target.values * 3) and result.isfinite().all()
    assert not result[:, 3].any()
    changed = x0.clone()
    changed[:, :, 4:] += 1
    torch.testing.assert_close(target.of(changed, masks)[:, 0], result[:, 0])
    rows = torch.cat([target.of(x0[i : i + 1], masks[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(rows, result, rtol=1e-4, atol=1e-5)


def test_texture_distinguishes_fills_of_embedded_scenes_better_than_the_mean(tiny, tmp_path):
    """Nearest class mean, of the region that each object has; a third of the items is held out."""
    cfg = compose_config([w for w in tiny if not w.startswith("data.size")] + [f"runs={tmp_path}"])
    experiment = Training(cfg, RunFolder.create(cfg))
    examples = [experiment.train_examples[i] for i in range(48)]
    batch = collate(examples)
    x0 = experiment.parts.codec.encode(batch.image)
    masks = soft_masks(batch.labels, batch.nodes.shape[1], tuple(x0.shape[2:]))
    places = [(i, int(np.bincount(inside).argmax()), o.fill in ("striped", "dotted"))
              for i, e in enumerate(examples) for o in e.item.objects
              if len(inside := (result := e.regions.labels[e.item.object_map == o.label])[result >= 0])]  # fmt: skip
    item, region, patterned = (np.array(x) for x in zip(*places, strict=True))
    train, test = item < 32, item >= 32

    def accuracy(of) -> float:
        x = of(x0, masks)[item, region].numpy()
        centres = np.stack([x[train & (patterned == kind)].mean(0) for kind in (False, True)])
        output = ((x[test][:, None] - centres) ** 2).sum(-1).argmin(1)
        return float(np.mean([(output == patterned[test])[patterned[test] == kind].mean() for kind in (False, True)]))

    assert accuracy(texture) > max(0.65, accuracy(mean) + 0.1)


# --- weights


@pytest.fixture(scope="module")
def experiment(tiny, tmp_path_factory) -> Training:
    words = ["loss=all_targets", f"runs={tmp_path_factory.mktemp('targets')}"]
    cfg = compose_config([*tiny, *words])
    return Training(cfg, RunFolder.create(cfg))


def losses(experiment: Training, **weights: float) -> dict[str, torch.Tensor]:
    loss = Loss(**{"region_latent": 0.0} | weights)
    experiment.cfg.loss = vars(loss)
    model = make_model(experiment.parts, "refine")
    batch = collate([experiment.train_examples[i] for i in range(4)])
    x0 = experiment.parts.codec.encode(batch.image)
    drawn = sample_step_noise(Diffusion(), x0.shape, 1000, {}, 0.0, generator(0, "x"))
    result = Objective(experiment.parts.diffusion, loss)(model, batch, x0, drawn)
    if model.region_latent is not None:
        result["loss"].backward()
        rows = model.region_latent.weight.grad.abs().sum(1)
        assert len(rows) == sum(target_sizes(vars(loss), x0.shape[1]).values()) and (rows > 0).all()
    return result


@pytest.mark.parametrize("names", [[], ["region_texture"], ["region_latent", "region_moments"], NAMES])
def test_only_what_has_a_weight_is_computed(names, experiment, monkeypatch):
    called = []
    for name, target in TARGETS.items():
        record_attention = type(target)(
            target.values, lambda *args, name=name, of=target.of: (called.append(name), of(*args))[1]
        )
        monkeypatch.setitem(TARGETS, name, record_attention)
    result = losses(experiment, **dict.fromkeys(names, 2.0))
    assert set(result) == {"loss", "diffusion", *names} and called == names
    torch.testing.assert_close(result["loss"], result["diffusion"] + sum(2 * result[name] for name in names))
    region_steps = plan(experiment.cfg, "refine", experiment.parts).region_steps
    assert region_steps == (3 if names else 0), "without a target they would have no loss"


def test_bf16_changes_no_target(experiment):
    result = []
    for precision in ("no", "bf16"):
        with Compute("cpu", precision):
            torch.manual_seed(0)
            result.append({k: float(v.detach()) for k, v in losses(experiment, **dict.fromkeys(NAMES, 1.0)).items()})
    exact, rough = result
    assert all(rough[name] == pytest.approx(exact[name], rel=0.05) for name in NAMES)


def test_a_region_learns_to_predict_its_texture(experiment, tmp_path: Path):
    """Thirty steps of the region path alone on one batch."""
    experiment.cfg.loss = vars(loss := Loss(region_latent=0.0, region_texture=1.0))
    model = make_model(experiment.parts, "refine")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    objective = Objective(experiment.parts.diffusion, loss)
    batch = collate([experiment.train_examples[i] for i in range(4)])
    x0 = experiment.parts.codec.encode(batch.image)
    drawn = sample_step_noise(Diffusion(), x0.shape, 1000, {}, 0.0, generator(0, "x"))
    recorded = []
    for _ in range(30):
        optimizer.zero_grad()
        value = objective(model, batch, x0, drawn, regions_only=True)["region_texture"]
        value.backward()
        optimizer.step()
        recorded.append(float(value))
    assert recorded[-1] < 0.3 * recorded[0]
