"""The attention mask of regions: who sees which words, at which layers, and how strongly."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import init_from_start, make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.experiment import run
from ragaf_exp.models.conditioning import RegionState
from ragaf_exp.models.regions.word_mask import WordMask
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.sample import main as sample

SHAPES = {"in": (4, 2, 4), "block.0": (4, 1, 2)}


def state() -> RegionState:
    """Two regions: the left half reads token 1, the right quarter tokens 2 and 3; between them lies no region."""
    fine = torch.zeros(1, 2, 2, 4)
    fine[:, 0, :, :2] = fine[:, 1, :, 3] = 1
    masks = {(2, 4): fine, (1, 2): torch.nn.functional.avg_pool2d(fine, 2)}
    text = torch.tensor([[[0.0, 0.9, 0.05, 0.0, 0.0], [0.1, 0.1, 0.4, 0.3, 0.0]]])
    nothing = torch.zeros(1, 2, 8)
    return RegionState(nothing, nothing, text, torch.ones(1, 2, dtype=torch.bool), masks)


def test_a_pixel_attends_to_the_words_of_its_region_and_without_one_to_all():
    bias = WordMask(SHAPES, 8, 2, strength=10).words(state()).at(0, 8).view(2, 4, 5)
    visible = bias[0] > -1
    assert visible.tolist() == [[True, True, False, False, False]] * 2 + [[True] * 5] + [[True, False, True, True, False]]
    assert torch.equal(bias[0], bias[1]) and bias[~(bias > -1)].max() < -60


def test_a_cell_of_two_kinds_is_hard_or_soft():
    hard, soft = (WordMask(SHAPES, 8, 2, hard=hard, strength=1).words(state()).at(0, 2)[0, 1] for hard in (True, False))
    assert hard.tolist()[1] == pytest.approx(-6.9, abs=0.01) and hard.tolist()[2] == 0
    assert soft.exp().tolist() == pytest.approx([1, 0.5, 1, 1, 0.5]), "half of the cell has no region"


def test_only_the_first_share_of_the_layers_is_masked():
    words = WordMask(SHAPES, 8, 4, share=0.5, strength=10).words(state())
    assert [bool(words.at(layer, 8).any()) for layer in range(4)] == [True, True, False, False]
    learned = WordMask(SHAPES, 8, 4, share=0.5)
    assert not any(learned.words(state()).at(layer, 8).any() for layer in range(4)), "it starts at no mask"
    learned.words(state()).at(0, 8).sum().backward()
    assert learned.gates.grad[0] < 0 and not learned.gates.grad[2:].any()


def test_an_oracle_reads_annotated_phrases():
    """The right region's phrase is token 3; the left one has none, so it has the tokens of no phrase."""
    phrases = torch.tensor([[[False] * 5, [False, False, False, True, False]]])
    mask = WordMask(SHAPES, 8, 2, strength=10, annotated=True)
    bias = mask.words(replace(state(), phrase_tokens=phrases)).at(0, 8).view(2, 4, 5)
    left, right = [True, True, True, False, True], [True, False, False, True, False]
    assert (bias[0] > -1).tolist() == [left, left, [True] * 5, right]
    with pytest.raises(UserError, match="injection.annotated=true: reads the phrases of annotated items"):
        mask.words(state())


@pytest.mark.long
def test_a_run_with_annotated_phrases_is_trained_and_evaluated(tiny, cli, tmp_path):
    """Training, validation and evaluation give the phrases; the oracle differs from the mask by attention."""
    path = run(compose_config([*tiny, "injection=mask", "injection.annotated=true", f"runs={tmp_path}"])).path
    assert json.loads((path / "metrics.json").read_text())["metrics"]["binding_accuracy"]["n"] > 0
    (tmp_path / "sketch.png").write_bytes(next(path.glob("samples/test/*/sketch.png")).read_bytes())
    drawing = [f"run={path}", f"sketch={tmp_path / 'sketch.png'}", 'prompt="a red circle"', f"out={tmp_path / 'out'}"]
    status, _, err = cli(sample, *drawing)
    assert status == 2 and "drawings have none; evaluate this run" in err


def test_shares_and_strengths_out_of_range_are_refused():
    with pytest.raises(UserError, match=r"injection.share=0: must be above 0"):
        WordMask(SHAPES, 8, 2, share=0)
    with pytest.raises(UserError, match=r"injection.strength=-1"):
        WordMask(SHAPES, 8, 2, strength=-1)


@pytest.mark.parametrize("isolate", ["0.0", "1.0"])
@pytest.mark.parametrize("backbone", ["tiny", "dit", "mmdit"])
def test_unets_and_transformers_are_masked_alike(tiny, tmp_path, backbone, isolate):
    """With a mask of the first words, the words of another region no longer matter to the pixels of a region."""
    sizes = ["backbone.width=32", "backbone.depth=2", "backbone.heads=2", f"backbone={backbone}"]
    options = tiny if backbone == "tiny" else [*(o for o in tiny if not o.startswith("backbone.")), *sizes]
    cfg = compose_config([*options, "injection=mask", "injection.strength=10", f"injection.isolate={isolate}"])
    parts = assemble(cfg, RunFolder(tmp_path))
    torch.manual_seed(0)
    coarse = make_model(parts, "coarse")
    with torch.no_grad():
        for parameter in coarse.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    refine = init_from_start(make_model(parts, "refine"), coarse.state_dict(), "full").eval()
    batch = collate([parts.examples("train")[i] for i in range(2)])
    x_t, t = torch.randn(2, 48, 8, 8), torch.tensor([500, 900])
    maps: list[torch.Tensor] = []
    with torch.no_grad(), refine.backbone.watch_attention(maps.append):
        conditioning = refine.condition(batch)
        refine.denoise(x_t, t, conditioning)
    assert len(maps) == refine.backbone.cross_layers
    words = refine.injection.words(conditioning.region_state)
    for layer, attention in enumerate(maps):
        hidden = words.at(layer, attention.shape[1]) < -30
        assert hidden.any() and attention[hidden].max() < 1e-6 and attention[~hidden].max() > 1e-3
