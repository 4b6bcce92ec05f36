"""Losses of the regions' attention to the caption: contrast over the batch, coverage, entropy, and known spans."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Loss
from ragaf_exp.core.randomness import generator
from ragaf_exp.data.loader import collate, region_spans
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.experiments.training import Training
from ragaf_exp.models.conditioning import Conditioning, RegionState, Text
from ragaf_exp.models.regions.contrast import Contrast
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.losses import weighted
from ragaf_exp.training.losses.region_text import contrastive, coverage, entropy, spans
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.setup import plan
from ragaf_exp.training.step_noise import sample_step_noise

LOSSES = ("contrastive", "coverage", "entropy", "spans")


def attention(
    rows: list, real: list | None = None, words: int | None = None, phrase_tokens: list | None = None
) -> Conditioning:
    """One item whose regions attend to START and the words as `rows` say."""
    region_text = torch.tensor([rows], dtype=torch.float)
    _, n, t = region_text.shape
    mask = torch.arange(t)[None] < (t if words is None else 1 + words)
    state = RegionState(torch.zeros(1, n, 2), torch.zeros(1, n, 2), region_text, torch.tensor([real or [True] * n]), {})
    output = None if phrase_tokens is None else torch.tensor([phrase_tokens])
    return Conditioning(Text(torch.zeros(1, t, 2), mask), {}, replace(state, phrase_tokens=output))


def word(place: int, share: float = 1.0, length: int = 9) -> list[float]:
    """Attention to one word of a caption, or to START, which is place 0."""
    return [share * (i == place) for i in range(length)]


def test_coverage_is_met_once_every_word_has_a_region_near():
    assert float(coverage(attention([word(2), word(6)]))) == 0, "two words to both sides are of the same phrase"
    assert float(coverage(attention([word(2), word(2)]))) == pytest.approx(0.5), "four words of eight"
    assert float(coverage(attention([word(2, 0.5), word(6, 0.5)]))) == 0
    assert float(coverage(attention([word(2, 0.25), word(7, 0.25)]))) == pytest.approx(0.5), "half of what is asked"
    assert float(coverage(attention([word(2, 0.3)] * 2 + [word(6, 0.3)] * 2))) == 0, "two regions share a phrase"
    assert float(coverage(attention([word(2)], words=4))) == 0, "padding is no word"
    assert float(coverage(attention([word(2, 0)], real=[False]))) == 0, "nothing can be covered without regions"
    assert float(coverage(attention([[0.0]]))) == 0, "an empty caption"
    region_text = torch.tensor([[word(2), word(3, 0.9)]], requires_grad=True)
    c = attention([word(2), word(2)])
    coverage(replace(c, regions=replace(c.regions, region_text=region_text))).backward()
    assert (region_text.grad[0, 1, 5:] < 0).all() and not region_text.grad[0, 1, :2].any(), "more for a word without region"


def test_entropy_is_of_the_words_and_nothing():
    assert float(entropy(attention([[0.0, 1.0, 0.0, 0.0]]))) == pytest.approx(0, abs=5e-3)
    assert float(entropy(attention([[0.0, 0.0, 0.0, 0.0]]))) == pytest.approx(0, abs=5e-3), "all to nothing is sharp"
    even = [[0.2, 0.2, 0.2, 0.2], [0.0, 1.0, 0.0, 0.0]]
    assert float(entropy(attention(even))) == pytest.approx(math.log(5) / 2, abs=5e-3)
    assert float(entropy(attention(even, real=[True, False]))) == pytest.approx(math.log(5), abs=5e-3)
    assert float(entropy(attention(even, real=[False, False]))) == 0


def test_spans_are_the_log_of_the_attention_to_ones_own_words():
    rows = [[0.0, 0.3, 0.2, 0.5], [0.0, 0.9, 0.0, 0.0]]
    own, none = [False, True, True, False], [False] * 4
    assert float(spans(attention(rows, phrase_tokens=[own, none]))) == pytest.approx(-math.log(0.5))
    assert float(spans(attention(rows, phrase_tokens=[none, none]))) == 0
    assert float(spans(attention([[0.0] * 4], phrase_tokens=[own]))) == pytest.approx(-math.log(1e-4)), "finite"


def many(count: int, seed: int = 0) -> tuple[RegionState, Text]:
    """Items whose two regions are, as vectors, two of the caption's three words."""
    words = torch.randn(count, 4, 8, generator=torch.Generator().manual_seed(seed))
    real, mask = torch.ones(count, 2, dtype=torch.bool), torch.ones(count, 4, dtype=torch.bool)
    return RegionState(words[:, 1:3].clone(), words[:, 1:3], torch.zeros(count, 2, 4), real, {}), Text(words, mask)


def same_space() -> Contrast:
    contrast = Contrast(8, 8, shared=8)
    for layer in (contrast.region, contrast.word):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return contrast


def test_contrast_is_low_where_regions_are_their_own_captions_words():
    state, text = many(6)
    right = contrastive(same_space()(state, text), Conditioning(text, {}, state))
    other = replace(state, structure=state.structure.roll(1, 0))
    wrong = contrastive(same_space()(other, text), Conditioning(text, {}, other))
    assert right.item() < 0.3 and wrong.item() > 1.5
    blind = replace(state, structure=torch.zeros_like(state.structure))
    unsure = contrastive(same_space()(blind, text), Conditioning(text, {}, blind))
    assert unsure.item() == pytest.approx(math.log(6))
    reader = replace(state, semantics=state.semantics + 9)
    assert torch.equal(same_space()(reader, text)[0], same_space()(state, text)[0]), "what has read it has no say"


def test_padding_and_items_without_regions_or_words_take_no_part_in_contrast():
    state, text = many(4)
    plain = contrastive(same_space()(state, text), Conditioning(text, {}, state))
    rows = torch.nn.functional.pad
    more = RegionState(rows(state.structure, (0, 0, 0, 3), value=5.0), state.semantics, state.region_text,
                       rows(state.region_mask, (0, 3)), {})  # fmt: skip
    longer = Text(rows(text.tokens, (0, 0, 0, 2), value=5.0), rows(text.mask, (0, 2)))
    torch.testing.assert_close(contrastive(same_space()(more, longer), Conditioning(longer, {}, more)), plain)
    few, short = many(6)
    few.region_mask[4] = False
    short.mask[5, 1:] = False
    for got, wanted in ((few.structure, state.structure), (short.tokens, text.tokens)):
        got[:4] = wanted
    torch.testing.assert_close(contrastive(same_space()(few, short), Conditioning(short, {}, few)), plain)
    few.region_mask[:] = False
    assert float(contrastive(same_space()(few, short), Conditioning(short, {}, few))) == 0


# --- in training


@pytest.fixture(scope="module")
def experiment(tiny, tmp_path_factory) -> Training:
    cfg = compose_config([*tiny, "loss=attention", f"runs={tmp_path_factory.mktemp('text')}"])
    return Training(cfg, RunFolder.create(cfg))


def test_a_regions_span_is_that_of_its_object(experiment):
    result = 0
    for i in range(12):
        example = experiment.train_examples[i]
        given = region_spans(example)
        assert given.shape == (example.regions.count, 2)
        for thing in example.item.objects:
            inside = example.regions.labels[example.item.object_map == thing.label]
            inside = inside[inside >= 0]
            if len(inside) and thing.fill != "hollow":
                region = np.bincount(inside).argmax()
                share = (example.item.object_map[example.regions.labels == region] == thing.label).mean()
                assert (tuple(given[region]) == thing.span) == (share > 0.5)
                result += share > 0.5
        assert tuple(given[example.regions.background]) == (0, 0)
    assert result > 20
    drawn = replace(example, item=replace(example.item, objects=(), object_map=None))
    assert not region_spans(drawn).any(), "data without annotation"


def test_the_tokens_of_a_span_are_those_of_its_phrase(experiment):
    model = make_model(experiment.parts, "refine")
    batch = collate([experiment.train_examples[i] for i in range(3)], spans=True)
    conditioning = model.condition(batch)
    assert model.condition(replace(batch, spans=None)).region_state.phrase_tokens is None
    offsets = [model.text.token_spans(caption) for caption in batch.captions]
    for i, region in zip(*torch.nonzero(batch.spans[..., 1], as_tuple=True), strict=True):
        low, high = batch.spans[i, region].tolist()
        tokens = conditioning.region_state.phrase_tokens[i, region].nonzero()[:, 0].tolist()
        text = "".join(batch.captions[i][slice(*offsets[i][t])] for t in tokens)
        assert text == batch.captions[i][low:high].replace(" ", "")


def losses(experiment: Training, progress: float = 0.0, **weights: float) -> dict[str, torch.Tensor]:
    loss = Loss(**{"region_latent": 0.0} | weights)
    experiment.cfg.loss = vars(loss)
    model = make_model(experiment.parts, "refine")
    batch = collate([experiment.train_examples[i] for i in range(4)], spans=loss.spans > 0)
    x0 = experiment.parts.codec.encode(batch.image)
    objective = Objective(experiment.parts.diffusion, loss)
    drawn = sample_step_noise(Diffusion(), x0.shape, 1000, {}, 0.0, generator(0, "x"))
    result = objective(model, batch, x0, drawn, True, progress=progress)
    result["loss"].backward()
    assert (model.contrast is None) == (loss.contrastive == 0)
    if model.contrast is not None and not progress:
        assert all(p.grad is not None and p.grad.any() for p in model.contrast.parameters())
    return result


@pytest.mark.parametrize("names", [[name] for name in LOSSES] + [list(LOSSES)])
def test_only_what_has_a_weight_is_computed(names, experiment, monkeypatch):
    for name in set(LOSSES) - set(names):
        monkeypatch.setattr(weighted, name, lambda *_: pytest.fail("computed without a weight"))
    result = losses(experiment, **dict.fromkeys(names, 2.0))
    assert set(result) == {"loss", *names}
    torch.testing.assert_close(result["loss"], sum(2 * result[name] for name in names))
    assert all(result[name].isfinite() and (result[name] > 0 or name == "coverage") for name in names)
    assert plan(experiment.cfg, "refine", experiment.parts).region_steps == 3, "steps of the region path have a loss"


def test_the_contrastive_weight_falls_to_nothing(experiment):
    whole, half = (losses(experiment, at, contrastive=1.0, contrastive_until=0.4, entropy=1.0) for at in (0.0, 0.2))
    torch.testing.assert_close(whole["loss"] - whole["entropy"], whole["contrastive"])
    torch.testing.assert_close(half["loss"] - half["entropy"], half["contrastive"] / 2)
    over = losses(experiment, 0.4, contrastive=1.0, contrastive_until=0.4, entropy=1.0)
    assert over["loss"] == over["entropy"] and over["contrastive"] > 0, "logged, so that all steps have the same losses"
    alone = losses(experiment, 0.4, contrastive=1.0, contrastive_until=0.4)
    assert alone["loss"] == 0, "and a step of nothing else can go back through it"
    stays = losses(experiment, 0.9, contrastive=1.0)
    assert stays["loss"] == stays["contrastive"], "without an end it stays"


@pytest.mark.parametrize("name", ["contrastive", "entropy", "spans"])
def test_a_loss_can_be_learnt(name, experiment):
    """Thirty steps of the region path alone on one batch. Coverage is met from the start."""
    experiment.cfg.loss = vars(loss := Loss(region_latent=0.0, **{name: 1.0}))
    model = make_model(experiment.parts, "refine")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    objective = Objective(experiment.parts.diffusion, loss)
    batch = collate([experiment.train_examples[i] for i in range(4)], spans=True)
    x0 = experiment.parts.codec.encode(batch.image)
    drawn = sample_step_noise(Diffusion(), x0.shape, 1000, {}, 0.0, generator(0, "x"))
    recorded = []
    for _ in range(30):
        optimizer.zero_grad()
        value = objective(model, batch, x0, drawn, regions_only=True)[name]
        value.backward()
        optimizer.step()
        recorded.append(value.item())
    assert recorded[-1] < 0.5 * recorded[0]
