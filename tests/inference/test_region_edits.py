"""Region edits: what each of them changes, what stays to the bit, and what an edit may not say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_sd import save_sd

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.edits import RegionEdit, RegionEdits
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import collate
from ragaf_exp.diffusion.keeping import Stopped
from ragaf_exp.diffusion.process import SCHEDULERS, Diffusion
from ragaf_exp.inference.load import make_pipeline
from ragaf_exp.inference.pipeline import Pipeline
from ragaf_exp.models.model import Model
from ragaf_exp.models.prompts import with_prompts
from ragaf_exp.models.regions.encoder import Ragaf
from ragaf_exp.models.text.clip import ClipText
from ragaf_exp.regions.redo import redo_area
from ragaf_exp.runs.folder import RunFolder

CAPTION = "a red circle left of a blue star on a beige background"


@pytest.fixture(scope="module", params=["injection=multiscale", "injection=words"])
def world(request, tiny, tmp_path_factory):
    cfg = compose_config([*tiny, request.param])
    return assemble(cfg, RunFolder(tmp_path_factory.mktemp("world")))


def opened(model: Model) -> Model:
    """The model with every zero-initialised layer open, so that each path contributes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return model.eval()


@pytest.fixture(scope="module")
def model(world) -> Model:
    return opened(make_model(world, "refine"))


@pytest.fixture(scope="module")
def examples(world) -> list:
    return [e for e in (world.examples("train")[i] for i in range(12)) if e.regions.count >= 3][:3]


@pytest.fixture(scope="module")
def pipeline(world, model) -> Pipeline:
    models = {"coarse": opened(make_model(world, "coarse")), "refine": model}
    return make_pipeline(world.cfg, world, models, Compute("cpu", "no"))


def edited(examples, **edit) -> list:
    """Every example with this edit of region 1."""
    return [replace(e, edits=RegionEdits((RegionEdit(), RegionEdit(**edit)))) for e in examples]


@torch.no_grad()
def tokens(model, examples, keep_text=None, t=0.5):
    batch = collate(examples)
    state = model.condition(batch, {} if keep_text is None else {"text": keep_text}).region_state
    return state, model.ragaf.fuse(state, torch.full((len(batch),), t))[0]


def test_edits_that_change_nothing_change_no_bit(pipeline, examples):
    plain, same = (pipeline(collate(some)) for some in (examples, edited(examples)))
    assert torch.equal(plain.region_text, same.region_text) and list(plain.images) == ["stage1", "stage2"]
    for name, images in plain.images.items():
        assert torch.equal(images, same.images[name]), name


def test_a_prompt_changes_its_own_region_alone(model, examples):
    """Neighbours exchange structure, not what they read, so that no other token changes by a bit."""
    before, old = tokens(model, examples)
    after, new = tokens(model, edited(examples, prompt="green"))
    assert (new[:, 1] - old[:, 1]).abs().amax(-1).min() > 1e-4
    others = [i for i in range(old.shape[1]) if i != 1]
    assert torch.allclose(new[:, others], old[:, others], atol=1e-6)
    assert not after.region_text[:, 1].any() and after.region_text.shape == before.region_text.shape


def test_a_prompted_region_does_not_depend_on_the_caption(model, examples):
    others = [replace(e, item=replace(e.item, caption=CAPTION)) for e in examples]
    (_, first), (_, second) = (tokens(model, edited(some, prompt="green")) for some in (examples, others))
    assert torch.allclose(first[:, 1], second[:, 1], atol=1e-6) and not torch.allclose(first[:, 0], second[:, 0], atol=1e-6)


def test_the_denoiser_sees_the_caption_as_without_prompts(model, examples):
    plain, prompted = (model.condition(collate(some)) for some in (examples, edited(examples, prompt="green")))
    assert torch.equal(plain.text.tokens, prompted.text.tokens) and torch.equal(plain.text.mask, prompted.text.mask)
    if model.injection.gates is None:
        return
    everywhere = [replace(e, edits=RegionEdits((RegionEdit("green"),) * e.regions.count)) for e in examples]
    silent = model.injection.words(model.condition(collate(everywhere)).regions)
    for bias in silent.log_map.values():
        assert not bias.any(), "regions that read nothing of the caption must not bias attention to it"
    assert any(bias.any() for bias in model.injection.words(plain.regions).log_map.values())


def test_a_dropped_caption_drops_the_prompts(model, examples):
    keep = torch.zeros(len(examples), dtype=torch.bool)
    prompted = edited(examples, prompt="green")
    (_, plain), (_, prompted) = (tokens(model, some, keep_text=keep) for some in (examples, prompted))
    assert torch.allclose(plain, prompted, atol=1e-6)


def test_unknown_words_are_left_out_and_a_prompt_without_others_reads_the_caption(model, examples):
    assert model.text.known_part("please paint Red, zebra!") == ("Red ,", ["please", "paint", "zebra", "!"])
    assert model.text.known_part("zebra") == ("", ["zebra"]) and model.text.known_part("") == ("", [])
    _, red = tokens(model, edited(examples, prompt="red"))
    _, loud = tokens(model, edited(examples, prompt="  zebra RED "))
    assert torch.equal(red, loud)
    (_, plain), (_, unknown) = tokens(model, examples), tokens(model, edited(examples, prompt="zebra"))
    assert torch.equal(plain, unknown)


def test_words_of_a_full_vocabulary_may_be_rare_ones_of_the_captions(world):
    full = type(world.tokenizer).from_str(world.tokenizer.to_str())
    text = make_model(world, "coarse").text
    text.tokenizer, text.vocabulary = full, full.get_vocab_size()
    assert text.known_part("reddish") == ("reddish", [])


def test_prompts_of_different_lengths_and_numbers_are_laid_out_per_item(model):
    caption = model.text([CAPTION, "a red circle"])
    prompts = [["green", "", "a striped blue star"], ["", "", "red"]]
    reading = with_prompts(model.text, caption, prompts, None)
    tokens = caption.mask.shape[1]
    assert reading.text.mask[:, tokens:].sum(1).tolist() == [5, 1]
    own = reading.readable[:, :, 1 + tokens :] & reading.text.mask[:, None, tokens:]
    assert own.sum(-1).tolist() == [[1, 0, 4], [0, 0, 1]]
    assert reading.readable[:, :, 0].tolist() == [[False, True, False], [True, True, False]], "the null token"
    alone = model.text(["a striped blue star"]).tokens[0, 1:]
    assert torch.allclose(reading.text.tokens[0, tokens:][own[0, 2]], alone, atol=1e-6)


def test_importance_interpolates_between_silence_and_the_trained_token(model, examples):
    old, keep = tokens(model, examples)[1], torch.zeros(len(examples), dtype=torch.bool)
    silent = tokens(model, examples, keep_text=keep)[1]
    for scale in (0.0, 0.5, 2.0):
        new = tokens(model, edited(examples, importance=scale))[1]
        assert torch.allclose(new[:, 1], silent[:, 1] + scale * (old - silent)[:, 1], atol=1e-5)
        assert torch.equal(new[:, 0], old[:, 0])


@pytest.mark.parametrize("t, reads", [(0.95, False), (0.8, True), (0.5, True), (0.2, False)])
def test_a_region_reads_its_text_between_start_and_end_alone(model, examples, t, reads):
    always, silent = (tokens(model, edited(examples, prompt="green", importance=scale), t=t)[1] for scale in (1.0, 0.0))
    some = tokens(model, edited(examples, prompt="green", start=0.1, end=0.6), t=t)[1]
    assert not torch.allclose(always[:, 1], silent[:, 1], atol=1e-4)
    assert torch.allclose(some, always if reads else silent, atol=1e-6)


def test_start_and_end_count_the_timesteps_of_the_sampler(world, pipeline, examples, monkeypatch):
    def stage2(**edit):
        return pipeline(collate(edited(examples, prompt="green", **edit))).images["stage2"]

    fuse, passed = Ragaf.fuse, []
    monkeypatch.setattr(Ragaf, "fuse", lambda self, state, t: passed.append(1 - float(t[0])) or fuse(self, state, t))
    always, never = stage2(), stage2(importance=0.0)
    first, second = sorted(set(passed))[:2]
    between = first + (second - first) / 3, second - (second - first) / 3
    assert torch.equal(stage2(start=between[0], end=between[1]), never)
    some = stage2(end=between[0])
    if world.cfg.injection.points:  # the bias on attention alone does not read the prompt
        assert not torch.equal(some, never) and not torch.equal(some, always)


def test_an_outline_scales_the_hint_in_its_region(world, model, examples):
    batch = collate(edited(examples, outline=0.0))
    map_ = model.condition(batch).outline
    region = (batch.labels == 1)[:, None]
    assert not map_[region].any() and (map_[~region] == 1).all()
    x_t = torch.randn(world.codec.latent_shape(batch))
    t = torch.full((len(batch),), 500)
    plain, faint = (model(collate(some), x_t, t)[0].value for some in (examples, edited(examples, outline=0.5)))
    assert not torch.allclose(plain, faint)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_pixels_that_stay_are_equal_to_the_bit(world, pipeline, examples, scheduler):
    sampler = type(world.sampler)(world.diffusion, scheduler, steps=4)
    again = Pipeline(pipeline.stages, world.codec, sampler, pipeline.compute, seed=3)
    image = np.random.default_rng(0).integers(0, 256, (world.cfg.data.size,) * 2 + (3,), dtype=np.uint8)
    edits = RegionEdits((RegionEdit(locked=True), RegionEdit(prompt="green")), image, frozenset({1}), grow=0.1)
    sampled = again(collate([replace(e, edits=edits) for e in examples])).to_images()
    assert list(sampled.images) == ["stage2"]
    for example, made in zip(examples, sampled.final, strict=True):
        area = redo_area(example.regions.labels, {1}, {0}, 0.1)
        assert area.any() and not area[example.regions.labels == 0].any()
        assert np.array_equal(made[~area], image[~area])
        assert (made[area] != image[area]).any(-1).mean() > 0.5


@given(arrays(np.int16, (9, 12), elements=st.integers(-1, 3)), st.floats(0, 0.5))
def test_the_area_grows_by_its_share_of_the_side_and_never_into_locked_regions(labels, grow):
    area = redo_area(labels, {2}, {0}, grow)
    assert not area[labels == 0].any() and area[labels == 2].all()
    far = round(grow * 9)
    for y, x in np.argwhere(area):
        assert (labels[max(0, y - far) : y + far + 1, max(0, x - far) : x + far + 1] == 2).any()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["x0", "v", "eps"]), st.integers(0, 999), st.integers(0, 9))
def test_from_x0_inverts_to_x0(prediction, t, seed):
    process = Diffusion(prediction=prediction, zero_terminal_snr=False)
    x_t, x_0 = torch.randn((2, 2, 3, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    times = torch.tensor([t, t])
    assert torch.allclose(process.to_x0(process.from_x0(x_0, x_t, times), x_t, times), x_0, atol=1e-5)


def test_every_step_is_watched_and_may_stop_the_sampling(pipeline, examples):
    steps = []
    pipeline(collate(examples[:1]), watch=lambda stage, step: steps.append((stage, step.number, step.count)))
    count = pipeline.sampler.steps
    assert steps == [(stage, n, count) for stage in (1, 2) for n in range(1, count + 1)]

    def stop(stage, step):
        raise Stopped

    with pytest.raises(Stopped):
        pipeline(collate(examples[:1]), watch=stop)


def test_edits_need_a_stage_with_regions(world, pipeline, examples):
    alone = Pipeline(pipeline.stages[:1], world.codec, world.sampler, pipeline.compute, 0)
    with pytest.raises(UserError, match="no stage with regions"):
        alone(collate(edited(examples, prompt="green")))


@pytest.mark.parametrize("wrong", [{"importance": 2.5}, {"importance": float("nan")}, {"outline": -1}])
def test_an_edit_out_of_range_is_refused(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}=.*between 0 and 2"):
        RegionEdit(**wrong)


@pytest.mark.parametrize("wrong", [{"start": -0.1}, {"end": 1.5}, {"start": 0.5, "end": 0.5}, {"start": float("nan")}])
def test_a_period_that_is_none_is_refused(wrong):
    with pytest.raises(UserError, match="start=.*end=.*increasing shares"):
        RegionEdit(**wrong)


def test_a_batch_keeps_images_of_all_items_or_of_none(world, examples):
    image = np.zeros((world.cfg.data.size,) * 2 + (3,), np.uint8)
    one = replace(examples[0], edits=RegionEdits((RegionEdit(),), image, frozenset({0})))
    with pytest.raises(ValueError, match="or none"):
        collate([one, examples[1]])
    part = collate([one, one]).rows(slice(1, 2)).edits
    assert part.keep.image.shape[0] == 1 and len(part.prompts) == 1


def test_prompts_of_a_pretrained_encoder_keep_their_end_token_and_lose_the_padding(tmp_path):
    sd = save_sd(tmp_path / "sd")
    settings_ = compose_config(["text=clip", f"text.source={sd}"]).text
    (tmp_path / "tokenizer.json").write_text(ClipText.tokenizer_for(settings_, list).to_str())
    clip = ClipText(ClipText.load(tmp_path / "tokenizer.json"), str(sd))
    prompt = "a red circle"
    reading = with_prompts(clip, clip([CAPTION]), [["", prompt]], None)
    own = reading.text.mask[0, clip.max_tokens :]
    assert own.all() and len(own) == len(clip.token_spans(prompt)) - 1
    alone = clip([prompt]).tokens[0, 1 : 1 + len(own)]
    assert torch.equal(reading.text.tokens[0, clip.max_tokens :], alone)
    assert not reading.readable[0, 1, : 1 + clip.max_tokens].any() and reading.readable[0, 0, : 1 + clip.max_tokens].all()
