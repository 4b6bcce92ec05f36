"""Phrases assigned to regions in training: which, how often, reproducibly, and what a tiny training learns from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ragaf_exp.assembly.assemble import assemble, preparer
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.assign import Assigned, colour_of, with_prompts
from ragaf_exp.data.loader import Examples, collate, region_objects, region_spans
from ragaf_exp.data.sources.scenes import Scenes
from ragaf_exp.experiments import shared_stage
from ragaf_exp.models.model import Model
from ragaf_exp.runs.folder import RunFolder


@pytest.fixture(scope="module")
def examples() -> Examples:
    prepare = preparer(compose_config([]))
    return Examples(Scenes(train=40).split("train"), prepare, cache_mb=64)


def test_a_share_of_the_objects_is_assigned_by_seed_step_and_item(examples):
    split = Assigned(examples, 0.3, seed=1)
    assigned = [split.at(step, index) for step in range(5) for index in range(40)]
    prompted = [sum(bool(edit.prompt) for edit in e.edits.regions) if e.edits else 0 for e in assigned]
    objects = [len(set(region_objects(e).tolist()) - {-1}) for e in assigned]
    assert 0.25 < sum(prompted) / sum(objects) < 0.36
    assert split.at(3, 7).edits == Assigned(examples, 0.3, seed=1).at(3, 7).edits
    assert any(split.at(3, i).edits != split.at(4, i).edits for i in range(9))
    assert split[3].edits is None and len(split) == 40


def test_a_region_gets_the_phrase_or_the_colour_of_its_own_object(examples):
    for e in (Assigned(examples, 1.0, seed=0).at(0, i) for i in range(40)):
        for region, owner in enumerate(region_objects(e)):
            prompt = e.edits.regions[region].prompt
            if owner < 0:
                assert not prompt
                continue
            thing = e.item.objects[owner]
            assert prompt in (e.item.caption[slice(*thing.span)], colour_of(thing)) and thing.colour in prompt


def test_assigned_regions_have_no_phrase_to_attend_to(examples):
    example = examples[0]
    prompted = with_prompts(example, [0])
    owners, spans = region_objects(example), region_spans(prompted)
    assert not spans[owners == 0].any()
    assert np.array_equal(spans[owners != 0], region_spans(example)[owners != 0])


def test_objects_without_a_region_leave_the_example_unchanged(examples):
    bare = replace(examples[0], item=replace(examples[0].item, objects=()))
    assert with_prompts(bare, []).edits is None


def test_assigned_members_share_stage_1_and_differ_in_their_hash():
    plain, assigned = (compose_config(["+experiment=ablation", f"member={name}"]) for name in ("full", "assigned"))
    assert config_hash(plain) != config_hash(assigned)
    assert shared_stage.needs(plain) == shared_stage.needs(assigned)


@pytest.mark.parametrize("override", ["memory.features=all", "loss.coverage=0.1"])
def test_what_does_not_go_together_is_one_line(override, tiny, tmp_path):
    with pytest.raises(UserError, match=f"task.assign=0.5: .*{override.partition('=')[0]}"):
        assemble(compose_config([*tiny, "task.assign=0.5", override]), RunFolder(tmp_path))


@pytest.mark.long
def test_a_tiny_region_path_learns_phrases_without_their_context(tiny, tmp_path):
    """With every phrase assigned, region tokens learn the colour of their prompt, also against the caption."""
    cfg = compose_config([*tiny, "task.assign=1", "data.train=64"])
    parts = assemble(cfg, RunFolder(tmp_path))
    torch.manual_seed(0)
    model = make_model(parts, "refine").train()
    split = parts.examples("train")
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    for step in range(90):
        batch = collate([split.at(step, (16 * step + i) % 64) for i in range(16)])
        loss = colour_error(model, batch, parts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    some = [split[i] for i in range(24)]
    with torch.no_grad():
        right = colour_error(model, collate([with_prompts(e, range(len(e.item.objects))) for e in some]), parts)
        others = [with_prompts(e, range(len(e.item.objects)), other_colour) for e in some]
        wrong = colour_error(model, collate(others), parts)
    assert right < 0.5 * wrong, (float(right), float(wrong))


def other_colour(index, thing) -> str:
    return "cyan" if thing.colour != "cyan" else "red"


def colour_error(model: Model, batch, parts) -> torch.Tensor:
    """Mean squared error of the regions' predicted colour, of prompted regions."""
    from ragaf_exp.models.regions.pooling import pool

    latent = parts.codec.encode(batch.image)
    state = model.condition(batch, denoises=False).region_state
    tokens, _ = model.ragaf.fuse(state, torch.zeros(len(batch)))
    want = pool(latent, state.soft_masks[tuple(latent.shape[2:])])
    prompted = torch.tensor([[bool(p) for p in row] for row in batch.edits.prompts])
    return (model.region_latent(tokens) - want).square().mean(-1)[prompted].mean()
