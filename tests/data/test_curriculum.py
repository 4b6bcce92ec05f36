"""Few regions first: what is open grows with the step, and a step's items are a function of seed and step."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.config.compose import compose_config
from ragaf_exp.data.curriculum import OPEN, eased, easy_first
from ragaf_exp.data.loader import batch_order
from ragaf_exp.experiments.training import Training
from ragaf_exp.runs.folder import RunFolder


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(1, 8), st.integers(1, 30), st.integers(0, 29))
def test_a_step_samples_from_the_items_open_at_that_step(length, batch, end, first):
    easy = np.random.default_rng(0).permutation(length)
    place = easy.argsort()

    def rows(steps: range) -> list[list[int]]:
        return list(eased(batch_order(length, batch, 0, steps), steps, easy, end))

    whole = rows(range(40))
    assert rows(range(first, 40)) == whole[first:], "a resumed run goes on as it would have"
    for step, drawn in enumerate(whole[:end]):
        share = OPEN + (1 - OPEN) * step / end
        assert len(drawn) == batch and all(place[i] < max(1, round(share * length)) for i in drawn)
    assert whole[end:] == list(batch_order(length, batch, 0, range(end, 40))), "then the plain order"


def test_each_open_item_comes_as_often():
    easy, steps = np.arange(40), range(100)
    order = ([int(i)] for i in np.tile(np.arange(40), 3)[:100])
    drawn = np.array(list(eased(order, steps, easy, 10**9)))[:80, 0]
    assert (np.bincount(drawn, minlength=40)[:10] == 8).all() and drawn.max() == 9


def test_training_starts_with_few_regions(tiny, tmp_path, monkeypatch):
    words = [w for w in tiny if not w.startswith(("stage.coarse.steps", "stage.batch"))]
    cfg = compose_config([*words, "stage.coarse.steps=40", "stage.batch=8", "stage.curriculum=1", f"runs={tmp_path}"])
    experiment = Training(cfg, RunFolder.create(cfg))
    examples = experiment.train_examples
    counts = np.array([examples[i].regions.count for i in range(len(examples))])
    assert (np.diff(counts[easy_first(examples)]) >= 0).all()
    trainer = experiment.trainer("coarse", {})
    rows = list(trainer._order(examples, 0))
    means = [counts[row].mean() for row in rows]
    assert max(counts[i] for i in rows[0]) < counts.max() and np.mean(means[:10]) < np.mean(means[30:]) - 0.5
    assert list(trainer._order(examples, 25)) == rows[25:]
    trainer.stage_cfg.curriculum = 0.0
    assert list(trainer._order(examples, 0)) == list(batch_order(len(examples), 8, cfg.seed, range(40))), "off"
