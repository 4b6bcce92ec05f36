"""One network for several tasks: shares, batches of one task, delegation, figures by task, and files."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.buckets import batches_of, bucket_order, groups_of, kinds_of
from ragaf_exp.data.loader import collate
from ragaf_exp.data.sources.mixture import Mixture, _interleaved
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.training import Training
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.sample import main

SHORT = """stage=coarse stage.coarse.steps=8 stage.validate_every=8 stage.checkpoint_every=8 data.test=16 eval.test_items=8
    eval.validation_items=8""".split()


def overrides(tiny: list[str], *more: str) -> list[str]:
    words = [*SHORT, *more]
    replaced = {word.partition("=")[0] for word in words}
    return ["+experiment=multitask", *(word for word in tiny if word.partition("=")[0] not in replaced), *words]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    return run(compose_config([*overrides(tiny), f"runs={tmp_path_factory.mktemp('multitask')}"])).path


@pytest.fixture(scope="module")
def experiment(tiny, tmp_path_factory) -> Training:
    cfg = compose_config([*overrides(tiny), f"runs={tmp_path_factory.mktemp('fresh')}"])
    return Training(cfg, RunFolder.create(cfg))


# --- data


@settings(max_examples=60)
@given(shares=st.lists(st.integers(1, 9), min_size=1, max_size=5), length=st.integers(1, 200))
def test_every_first_part_has_the_shares(shares, length):
    order = _interleaved(np.array(shares, float), length).tolist()
    for end in range(1, length + 1):
        for task, share in enumerate(shares):
            # d'Hondt-like rounding: a source is at most one item per other source away from its share
            assert abs(order[:end].count(task) - end * share / sum(shares)) <= len(shares)


def test_items_know_their_task_and_batches_are_of_one():
    source = Mixture(size=32, train=60, val=8, test=8, sources=["scenes", "removal"], weights=[2.0, 1.0])
    items = source.split("train")
    assert [items[i].task for i in range(60)] == items.tasks.tolist() and (items.tasks == 0).sum() == 40
    assert len({items[i].key for i in range(60)}) == 60
    batches = list(islice(bucket_order(groups_of(items), [10, 10], 0, range(60)), 60))
    assert all(len({items.tasks[i] for i in batch}) == 1 for batch in batches)
    shares = [items.tasks[batch[0]] for batch in batches]
    assert shares.count(0) == 40, "a task has as many batches as its weight says"
    assert all(len({items.tasks[i] for i in rows}) == 1 for rows in batches_of(kinds_of(items), 4))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sources": ["scenes", "nothing"]}, "nothing is no option of the group data"),
        ({"sources": ["folder"]}, "folder needs files"),
        ({"sources": ["scenes", "removal"], "weights": [1.0]}, "one positive number for each of scenes, removal"),
        ({"sources": ["scenes"], "weights": [0.0]}, "one positive number"),
        ({"sources": ["../data/scenes"]}, "is no option"),
    ],
)
def test_wrong_mixtures_are_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        Mixture(**settings)


# --- network


def test_the_token_and_the_layout_are_the_task_s(experiment):
    model = make_model(experiment.parts, "coarse")
    torch.nn.init.normal_(model.backbone.head.last.weight, std=0.1)
    items, task = experiment.train_examples, experiment.parts.task
    assert model.task_tokens.num_embeddings == 4 and task.hint_channels == 5
    for index in range(4):
        batch = collate([items.at(0, i) for i in range(40) if items.items.tasks[i] == index][:2])
        conditions = model.condition(batch)
        assert conditions.task_token.shape[1] == 1 and torch.equal(batch.task, torch.full((2,), index))
        x = torch.randn(experiment.parts.codec.latent_shape(batch))
        assert conditions.extra.shape == (2, task.extra_channels(x.shape[1]), 8, 16 if task.names[index] == "insert" else 8)
        assert model.denoise(x, torch.full((2,), 500), conditions).value.shape == x.shape
    wb = collate([items.at(0, i) for i in range(40) if items.items.tasks[i] == 3][:2])
    assert not model.condition(wb).extra[:, 0].any(), "white balance has no hole"


def test_a_single_task_as_multitask_has_the_same_inputs(tiny, tmp_path):
    """The layout of inpainting does not depend on whether other tasks are trained too."""
    words = overrides(tiny, "task.tasks=[inpaint]", "data.sources=[scenes]", "data.weights=[1.0]")
    cfg = compose_config([*words, f"runs={tmp_path}"])
    parts = Training(cfg, RunFolder.create(cfg)).parts
    batch = collate([parts.examples("train").at(0, i) for i in range(2)])
    whole, part = parts.task, parts.task.parts[0]
    encode = parts.codec.encode
    assert torch.equal(whole.extra(batch, {}, encode), part.extra(batch, {}, encode))
    assert torch.equal(whole.hint_image(batch, {})[0], part.hint_image(batch, {})[0])


# --- a run


@pytest.mark.long
def test_figures_are_by_task(trained):
    metrics = json.loads((trained / "metrics.json").read_text())["metrics"]
    names = {"inpaint/psnr_hole", "remove/still_visible", "insert/object_colour", "white_balance/delta_e_2000"}
    assert names <= set(metrics)
    assert metrics["insert/psnr_hole"]["n"] == 2 and metrics["mse"]["n"] == 8
    assert metrics["white_balance/delta_e_2000"]["higher_is_better"] is False
    for task in ("inpaint", "remove", "insert"):
        assert metrics[f"{task}/kept_unchanged"]["value"] == 1
    assert "White balance" in (trained / "report.html").read_text()


@pytest.mark.long
def test_files_of_each_task(cli, refused, trained, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("image", "object"):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    mask = np.zeros((40, 48), np.uint8)
    mask[10:20, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    image, hole, thing = (f"{name}={tmp_path / name}.png" for name in ("image", "mask", "object"))
    before = np.asarray(Image.open(tmp_path / "image.png"))
    for task, files in {"inpaint": [hole], "insert": [hole, thing], "white_balance": []}.items():
        out = tmp_path / task
        status, _, err = cli(main, f"run={trained}", f"out={out}", f"task={task}", image, *files)
        assert status == 0, err
        after = np.asarray(Image.open(out / "result.png"))
        assert after.shape == before.shape and (not files or (after[mask == 0] == before[mask == 0]).all())
    named = (f"run={trained}", f"out={tmp_path / 'out'}", image)
    refused(main, *named, says=("task=: this run has inpaint, remove",))
    refused(main, *named, "task=paint", says=("task=paint: this run has",))
    refused(main, *named, "task=inpaint", says=("mask=: missing; task=inpaint needs",))


def test_data_without_tasks_is_one_line(tiny, tmp_path):
    words = [w for w in overrides(tiny) if not w.startswith("data.sources")]
    with pytest.raises(UserError, match="belongs to no task; take data=mixture"):
        run(compose_config([*words, "data=scenes", f"runs={tmp_path}"]))


@pytest.mark.long
def test_one_task_is_not_selected(cli, refused, finished, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    named = (f"run={finished}", f"out={tmp_path / 'out'}", f"image={tmp_path / 'a.png'}", f"mask={tmp_path / 'a.png'}")
    refused(main, *named, "task=inpaint", says=("task=inpaint: this run has one task",))
