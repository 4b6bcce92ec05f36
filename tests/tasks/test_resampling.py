"""A diffusion transformer with contextual attention inpaints; RePaint's resampling is measured by size of the holes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.masks.generate import Masks
from ragaf_exp.evaluation.resampling.__main__ import main
from ragaf_exp.evaluation.resampling.measure import with_hole
from ragaf_exp.experiments.experiment import run

pytestmark = pytest.mark.long

MEASURED = ["items=4", "widths=[thin,thick]", "resamplings=[1,2]", "steps=4", "jump=1"]
SHORT = """stage=coarse stage.coarse.steps=40 stage.batch=8 stage.validate_every=40 stage.checkpoint_every=40
    stage.log_every=10 eval.validation_items=4 backbone.width=48 backbone.depth=3 backbone.patch_size=1""".split()


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    names = {word.partition("=")[0] for word in SHORT} | {"backbone.widths", "backbone.heads"}
    words = [word for word in tiny if word.partition("=")[0] not in names]
    folder = tmp_path_factory.mktemp("contextual")
    member = ["+experiment=inpaint_dit", "member=inpaint/dit_contextual", "backbone.heads=2"]
    return run(compose_config([*member, *words, *SHORT, f"runs={folder}"])).path


def test_a_transformer_with_contextual_attention_learns_to_inpaint(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss_diffusion"] for row in rows if "loss_diffusion" in row]
    assert losses[-1] < 0.6 * losses[0]


def test_figures_by_width_with_calls_and_paired_differences(trained, tmp_path, cli):
    status, shown, err = cli(main, f"run={trained}", f"out={tmp_path / 'figures.json'}", *MEASURED)
    assert status == 0, err
    content = json.loads((tmp_path / "figures.json").read_text())
    figures = content["figures"]
    for width in ("thin", "thick"):
        assert {f"{width}/{name}/psnr_hole" for name in ("telea", "biharmonic", "run", "resamplings_1",
                                                         "resamplings_2_against_1")} <= figures.keys()  # fmt: skip
    calls = [figures[f"thin/resamplings_{r}/psnr_hole"]["calls"] for r in (1, 2)]
    assert calls == [4, 7], "levels 0, 1 and 2 are passed twice: 4 + 3 calls"
    difference = figures["thin/resamplings_2_against_1/psnr_hole"]["value"]
    means = [figures[f"thin/resamplings_{r}/psnr_hole"]["value"] for r in (1, 2)]
    assert difference == pytest.approx(means[1] - means[0]) and difference != 0
    assert figures["thick/telea/psnr_hole"]["n"] == 4 and "thick holes, telea" in shown


@pytest.mark.parametrize("word, reason", [
    ("widths=[wide]", "widths=wide: must be one of"), ("drop=[sound]", "drop=sound"), ("items=1", "items=1"),
    ("resamplings=[a]", "resamplings=.a.: must be whole numbers"),
])  # fmt: skip
def test_wrong_values_are_refused(trained, cli, word, reason):
    words = [w for w in MEASURED if w.partition("=")[0] != word.partition("=")[0]]
    status, _, err = cli(main, f"run={trained}", *words, word)
    assert status == 2
    assert re.search(reason, err)


def test_masks_are_functions_of_the_item(trained):
    item = Item("a", np.zeros((32, 32, 3), np.uint8), "", None)
    example = Example(item, None, None, None)
    first, again, other = (with_hole(example, Masks("lama", width)) for width in ("thin", "thin", "thick"))
    assert (first.conditions["hole"] == again.conditions["hole"]).all()
    assert (first.conditions["hole"] != other.conditions["hole"]).any()
