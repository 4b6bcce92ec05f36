"""backbone=unet160 through an epoch of the embedded data in both stages, at sizes that 64 divides and that it does not."""

from __future__ import annotations

import pytest
from run_files import train_all

from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.training import Training
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder

ITEMS = 4
WORDS = f"""memory=4gb memory.force=true memory.features=none memory.optimizer=adamw codec.weights=none backbone.base=32
    backbone.heads=2 data.train={ITEMS} data.val=2 data.test=1 stage.batch=2 stage.accumulate=1 stage.coarse.steps=2
    stage.refine.steps=2 stage.refine.region_steps=0 stage.validate_every=2 eval.grid=1""".split()


@pytest.fixture
def words(tiny, tmp_path):
    given = {word.partition("=")[0] for word in WORDS}
    mine = [w for w in tiny if not w.startswith("backbone.") and w.partition("=")[0] not in {*given, "data.size"}]
    return [*mine, *WORDS, f"runs={tmp_path}"]


@pytest.mark.long
@pytest.mark.parametrize("size", [64, 72, 104])
def test_an_epoch_in_both_stages(size, words):
    """Latents of 8x8, 9x9 and 13x13, which the four levels halve to 1x1, 2x2 and 2x2."""
    cfg = compose_config([*words, f"data.size={size}"])
    experiment, indices = Training(cfg, RunFolder.create(cfg)), set()
    at = experiment.train_examples.at
    experiment.train_examples.at = lambda step, index: (indices.add(index), at(step, index))[1]
    train_all(experiment)
    assert indices == set(range(ITEMS)), "every item was trained on"
    for stage in (COARSE, REFINE):
        checkpoint = load_newest(experiment.folder.checkpoints, stage)
        assert checkpoint.step * cfg.stage.batch == ITEMS and all(v.isfinite().all() for v in checkpoint.model.values())


@pytest.mark.parametrize("size", [100, 65])
def test_a_size_that_is_no_whole_number_of_latent_pixels_is_refused(size, words):
    cfg = compose_config([*words, f"data.size={size}"])
    with pytest.raises(UserError, match=f"data.size={size}: must be a multiple of 8"):
        Training(cfg, RunFolder.create(cfg))
