"""Sampling: schedulers, strength, guidance, and noise that belongs to an item."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.randomness import derive, item_noise
from ragaf_exp.core.types import Batch
from ragaf_exp.data.loader import collate
from ragaf_exp.diffusion.process import SCHEDULERS, Diffusion
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.inference.load import load_run, make_pipeline
from ragaf_exp.inference.pipeline import to_uint8
from ragaf_exp.models.model import Prediction
from ragaf_exp.runs.folder import RunFolder

SHAPE = (3, 4, 5)


def batch_of(count: int) -> Batch:
    """A batch of which only the size is used."""
    nothing = torch.zeros(count, 1)
    return Batch([str(i) for i in range(count)], [""] * count, nothing, *[nothing] * 6)


def seeded(count: int, seed: int) -> torch.Tensor:
    return torch.randn((count, *SHAPE), generator=torch.Generator().manual_seed(seed))


@dataclass
class Oracle:
    """A network that knows x0 and predicts it in the process's parametrisation; records its inputs."""

    process: Diffusion
    x0: torch.Tensor

    def __post_init__(self) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def condition(self, batch, keep):
        return "conditions"

    def with_start(self, conditions, coarse):
        return conditions

    def denoise(self, x_t, t, conditions):
        self.calls.append((x_t, t))
        abar = self.process.abar[t.long()][:, None, None, None].to(x_t.dtype)
        noise = (x_t - abar.sqrt() * self.x0) / (1 - abar).sqrt()
        v = abar.sqrt() * noise - (1 - abar).sqrt() * self.x0
        return Prediction({"x0": self.x0, "eps": noise, "v": v}[self.process.prediction])


@pytest.mark.parametrize("strength", [1.0, 0.6, 0.05])
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("prediction", ["x0", "v", "eps"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_right_prediction_leads_to_x0(scheduler, prediction, steps, strength):
    process = Diffusion(prediction=prediction, zero_terminal_snr=prediction != "eps")
    oracle = Oracle(process, seeded(3, 1).clamp(-1, 1))
    coarse = seeded(3, 2).clamp(-1, 1) if strength < 1 else None
    sampled, _ = Sampler(process, scheduler, steps).sample(oracle, batch_of(3), seeded(3, 3), coarse, strength)
    assert len(oracle.calls) == max(1, round(steps * strength))
    rounding = 5e-2 if prediction == "eps" and steps * strength <= 1 else 5e-3  # the last steps say little of x0
    torch.testing.assert_close(sampled, oracle.x0, atol=rounding, rtol=0)
    times = [float(t[0]) for _, t in oracle.calls]
    assert times == sorted(times, reverse=True) and len(set(times)) == len(times)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_stage_2_starts_from_the_coarse_latent_noised_to_its_strength(scheduler):
    process = Diffusion()
    oracle = Oracle(process, seeded(2, 1))
    coarse, noise = seeded(2, 2), seeded(2, 3)
    Sampler(process, scheduler, 10).sample(oracle, batch_of(2), noise, coarse, 0.5)
    x_t, t = oracle.calls[0]
    assert 450 <= float(t[0]) <= 550, "half of the schedule"
    torch.testing.assert_close(x_t, process.add_noise(coarse, noise, t.long()), atol=2e-2, rtol=0)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_at_full_strength_the_coarse_latent_is_forgotten(scheduler):
    process = Diffusion()
    sampler = Sampler(process, scheduler, 5)
    starts = []
    for coarse in (None, seeded(2, 2), seeded(2, 4)):
        oracle = Oracle(process, seeded(2, 1))
        sampler.sample(oracle, batch_of(2), seeded(2, 3), coarse, 1.0)
        x_t, t = oracle.calls[0]
        assert float(t[0]) == 999
        torch.testing.assert_close(x_t, seeded(2, 3), atol=1e-2, rtol=1e-2)  # pure noise
        starts.append(x_t)
    assert torch.equal(starts[0], starts[1]) and torch.equal(starts[0], starts[2])


class Conditional:
    """Predicts one of four constants, by which conditions it is given: text, sketch and image."""

    def __init__(self) -> None:
        self.values = {(True, True, True): 0.7, (False, True, True): 0.2, (False, False, True): -0.4,
                       (False, False, False): -0.1}  # fmt: skip
        self.passes = 0

    def condition(self, batch, keep):
        assert all(given.unique().numel() == 1 for given in keep.values())
        return tuple(bool(keep[name][0]) for name in ("text", "sketch", "image"))

    def with_start(self, conditions, coarse):
        return conditions

    def denoise(self, x_t, t, conditions):
        self.passes += 1
        return Prediction(torch.full_like(x_t, self.values[conditions]))


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 10), st.floats(0, 10), st.just(1.0) | st.floats(0, 10))
def test_guidance_is_the_formula_of_several_conditions_and_its_weights_sum_to_one(text, sketch, image):
    sampler = Sampler(Diffusion(), steps=1, guidance=text, sketch_guidance=sketch, image_guidance=image)
    model = Conditional()
    sampled, first = sampler.sample(model, batch_of(2), seeded(2, 0))
    none, shown, drawn, all_three = -0.1, -0.4, 0.2, 0.7
    wanted = none + image * (shown - none) + sketch * (drawn - shown) + text * (all_three - drawn)
    torch.testing.assert_close(sampled, torch.full_like(sampled, wanted), atol=1e-4, rtol=1e-4)
    assert first == (True, True, True), "the conditioning handed on is the one with all"
    assert sum(weight for weight, *_ in sampler.passes()) == pytest.approx(1)


def test_guidance_of_one_is_the_plain_conditional_prediction():
    model = Conditional()
    sampled, _ = Sampler(Diffusion(), steps=4).sample(model, batch_of(2), seeded(2, 0))
    assert model.passes == 4, "nothing else is computed"
    assert torch.equal(sampled, torch.full_like(sampled, 0.7))
    model = Conditional()
    Sampler(Diffusion(), steps=4, guidance=3.0).sample(model, batch_of(2), seeded(2, 0))
    assert model.passes == 8
    model = Conditional()
    Sampler(Diffusion(), steps=4, guidance=3.0, sketch_guidance=2.0).sample(model, batch_of(2), seeded(2, 0))
    assert model.passes == 12
    model = Conditional()
    scales = {"guidance": 3.0, "sketch_guidance": 2.0, "image_guidance": 1.5}
    Sampler(Diffusion(), steps=4, **scales).sample(model, batch_of(2), seeded(2, 0))
    assert model.passes == 16


@given(st.integers(0, 2**63 - 1), st.text(max_size=20), st.text(max_size=20))
def test_seeds_are_derived_from_all_of_their_purpose(seed, one, other):
    assert derive(seed, one, other) == derive(seed, one, other) < 2**63
    assert derive(seed, one) != derive(seed, one, other)
    assert derive(seed, one) != derive(seed + 1, one)


def test_noise_belongs_to_the_item():
    keys = ["a", "b", "c", "d"]
    whole = item_noise(0, "coarse", keys, SHAPE)
    assert torch.equal(item_noise(0, "coarse", keys[::-1], SHAPE), whole.flip(0))
    assert torch.equal(item_noise(0, "coarse", ["c"], SHAPE), whole[2:3])
    others = [item_noise(1, "coarse", keys, SHAPE), item_noise(0, "refine", keys, SHAPE)]
    assert all(not torch.equal(whole, other) for other in others)
    large = item_noise(0, "x", [str(i) for i in range(200)], SHAPE)
    assert abs(float(large.mean())) < 0.03 and abs(float(large.std()) - 1) < 0.03


def test_norm_patches_must_divide_the_latents(tiny, tmp_path):
    whole = seeded(1, 0)[..., :4]
    Sampler(Diffusion(), steps=1, guidance=2.0, norm_patch=2).sample(Conditional(), batch_of(1), whole)
    with pytest.raises(UserError, match=r"sampler\.norm_patch=3: must divide the latents' sides, \d+ x \d+"):
        Sampler(Diffusion(), steps=1, guidance=2.0, norm_patch=3).sample(Conditional(), batch_of(1), whole)
    with pytest.raises(UserError, match=r"sampler\.norm_patch=3"):  # before the first step
        make_model(assemble(compose_config([*tiny, "sampler.norm_patch=3"]), RunFolder(tmp_path)), "coarse")


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, float("nan")])
def test_strength_out_of_range(strength):
    with pytest.raises(UserError, match="strength"):
        Sampler(Diffusion()).sample(Oracle(Diffusion(), seeded(1, 0)), batch_of(1), seeded(1, 0), seeded(1, 1), strength)


# --- both stages


@pytest.fixture(scope="module")
def loaded(finished):
    folder, cfg = RunFolder.read(finished)
    return load_run(folder, cfg)


def test_images_depend_on_no_batch_size_or_order(loaded):
    parts, pipeline = loaded
    examples = [parts.examples("test")[i] for i in range(4)]
    together = pipeline(collate(examples))
    backwards = pipeline(collate(examples[::-1]))
    for name in ("stage1", "stage2"):
        images = together.images[name]
        torch.testing.assert_close(backwards.images[name].flip(0), images, atol=1e-4, rtol=0)
        for i, example in enumerate(examples):
            alone = pipeline(collate([example])).images[name]
            torch.testing.assert_close(alone, images[i : i + 1], atol=1e-4, rtol=0)


def test_stages_seeds_and_strengths_differ(loaded):
    parts, pipeline = loaded
    batch = collate([parts.examples("test")[i] for i in range(2)])
    first, again = pipeline(batch), pipeline(batch)
    one, two = first.images.values()
    assert torch.equal(one, again.images["stage1"]) and torch.equal(two, again.images["stage2"])
    assert not torch.equal(one, two) and (first.to_images().final == first.to_images().images["stage2"]).all()
    pipeline.seed += 1
    other = pipeline(batch)
    pipeline.seed -= 1
    assert not torch.equal(other.images["stage1"], one)
    nearer = OmegaConf.merge(parts.cfg, {"stage": {"refine": {"strength": 0.4}}})
    near = make_pipeline(nearer, parts, pipeline.models, pipeline.compute)(batch)
    assert torch.equal(near.images["stage1"], one) and not torch.equal(near.images["stage2"], two)


@pytest.mark.parametrize("drawing", ["blank", "black"])
def test_drawings_without_lines_are_sampled(drawing, loaded):
    parts, pipeline = loaded
    example = parts.examples("test")[0]
    sketch = np.full(example.sketch.shape, float(drawing == "black"), np.float32)
    regions = parts.prepare.regions(sketch)
    example = replace(example, sketch=sketch, regions=regions, graph=parts.prepare.graph(regions))
    generated = pipeline(collate([example]))
    assert regions.count == (drawing == "blank")
    assert generated.images["stage1"].isfinite().all() and generated.images["stage2"].isfinite().all()


def test_pictures_are_rounded_and_clamped():
    image = torch.tensor([-2.0, -1.0, -0.999, 0.0, 0.999, 1.0, 3.0]).view(1, 1, 1, 7).expand(1, 3, 1, 7)
    (picture,) = to_uint8(image)
    assert picture.shape == (1, 7, 3) and picture.dtype == np.uint8
    assert picture[0, :, 0].tolist() == [0, 0, 0, 128, 255, 255, 255]
    assert to_uint8(image.bfloat16())[0].dtype == np.uint8
