"""A run of half a minute that must learn: the loss with the right condition ends clearly below the shuffled one."""

from __future__ import annotations

import json

import pytest
from run_files import train_all

from ragaf_exp.config.compose import compose_config
from ragaf_exp.experiments.training import Training
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.long

LONGER = """
    data.train=256 data.val=32 data.min_objects=1 data.max_objects=2 stage.batch=16 optim.warmup=10 optim.ema=0.95
    stage.coarse.steps=120 stage.coarse.lr=0.003
    stage.refine.region_steps=60 stage.refine.steps=60 stage.refine.lr=0.003
    stage.log_every=20 stage.validate_every=60 stage.checkpoint_every=1000
    eval.grid=1 eval.batch=32 eval.validation_items=32
""".split()


@pytest.fixture(scope="module")
def usage(tiny, tmp_path_factory) -> dict[tuple[str, int], dict[str, float]]:
    """(stage, step) -> the validation losses."""
    set_here = {word.partition("=")[0] for word in LONGER}
    words = [word for word in tiny if word.partition("=")[0] not in set_here]
    cfg = compose_config([*words, *LONGER, f"runs={tmp_path_factory.mktemp('learns')}"])
    folder = RunFolder.create(cfg)
    train_all(Training(cfg, folder))
    rows = [json.loads(line) for line in folder.curves.read_text().splitlines()]
    return {(row["stage"], row["step"]): row["validation"] for row in rows if "validation" in row}


def test_stage_1_reads_the_text_and_the_sketch(usage):
    early, late = usage["coarse", 60], usage["coarse", 120]
    assert late["right"] < 0.95 * early["right"]
    assert late["text_shuffled"] > 1.1 * late["right"]
    assert late["sketch_shuffled"] > 1.1 * late["right"]


def test_stage_2_reads_them_better_and_the_regions_too(usage):
    late = usage["refine", 120]
    assert late["right"] < 0.9 * usage["coarse", 120]["right"]
    assert late["text_shuffled"] > 1.4 * late["right"]
    assert late["sketch_shuffled"] > 1.3 * late["right"]
    assert late["regions_shuffled"] > 1.1 * late["right"]
