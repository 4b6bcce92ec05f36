"""Paint to image: hints from files and at random, metrics, and a tiny run from training to a painted file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from eval.painting import hint_metrics
from eval.rivals.painting import flood_fill
from eval.scoring import Scoring
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.loader import collate
from ragaf_exp.data.painting import fit_hints, random_hints, split_painting
from ragaf_exp.data.sources.palette import delta_e, to_lab
from ragaf_exp.data.sources.scenes import Scenes
from ragaf_exp.experiments.experiment import run
from ragaf_exp.inference.load import load_run
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.sample import main

SHORT = """stage=coarse stage.coarse.steps=50 stage.batch=8 stage.validate_every=50 stage.checkpoint_every=50
    stage.log_every=20 eval.validation_items=8 task.wrong=0 task.caption_dropout=0.5""".split()
RED, BLUE = (215, 30, 35), (40, 68, 221)


def overrides(tiny: list[str], *more: str) -> list[str]:
    words = [*SHORT, *more]
    replaced = {word.partition("=")[0] for word in words}
    return ["+experiment=paint", *(word for word in tiny if word.partition("=")[0] not in replaced), *words]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    return run(compose_config([*overrides(tiny), f"runs={tmp_path_factory.mktemp('paint')}"])).path


@pytest.fixture
def painting(tmp_path) -> Path:
    """A black circle on white, with a red blob in it and a blue stroke outside."""
    picture = Image.new("RGB", (96, 96), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((20, 20, 70, 70), outline=(0, 0, 0), width=3)
    pen.ellipse((38, 38, 52, 52), fill=RED)
    pen.line((5, 85, 60, 85), fill=BLUE, width=5)
    picture.save(tmp_path / "painting.png")
    return tmp_path / "painting.png"


def example_of(image: np.ndarray, hints: np.ndarray, hinted: np.ndarray) -> Example:
    return Example(Item("a", image, ""), None, None, None, conditions={"hints": hints, "hinted": hinted})


# --- hints


def test_a_painting_is_separated_into_lines_and_colours(painting):
    lines, hints, hinted = split_painting(np.asarray(Image.open(painting)))
    assert lines[21, 45] > 0.9 and lines[45, 45] == 0 and lines[85, 30] == 0 and lines[0, 0] == 0
    assert tuple(hints[45, 45]) == RED and tuple(hints[85, 30]) == BLUE
    assert hinted[45, 45] == hinted[85, 30] == 1 and hinted[21, 45] == hinted[0, 0] == 0


@settings(max_examples=25, deadline=None)
@given(size=st.sampled_from([16, 32, 64, 100]), seed=st.integers(0, 100))
def test_resized_hints_keep_their_colours(size, seed):
    rng = np.random.default_rng(seed)
    hinted = np.zeros((64, 64), np.float32)
    top, left = rng.integers(0, 40, 2)
    hinted[top : top + 20, left : left + 20] = 1
    hints = np.where(hinted[..., None] > 0, np.uint8(RED), np.uint8(128)).astype(np.uint8)
    small, there = fit_hints(hints, hinted, size, "crop")
    assert there.any() and there.shape == (size, size)
    assert delta_e(to_lab(small[there > 0]), to_lab(np.uint8([RED]))).max() < 6
    assert abs(there.mean() - hinted.mean()) < 0.08


def test_random_hints_are_right_unless_they_should_not_be():
    items = [Scenes(test=20).split("test")[i] for i in range(20)]
    for wrong in (0.0, 1.0):
        marks = [random_hints(np.random.default_rng(i), item.image, wrong) for i, item in enumerate(items)]
        far = [delta_e(to_lab(h[m > 0]), to_lab(item.image[m > 0])).min()
               for (h, m), item in zip(marks, items, strict=True) if m.any()]  # fmt: skip
        near = [delta_e(to_lab(h[m > 0]), to_lab(item.image[m > 0])).max()
                for (h, m), item in zip(marks, items, strict=True) if m.any()]  # fmt: skip
        assert len(far) > 10
        assert max(near) < 12 if wrong == 0 else min(far) > 15
    one, again = (random_hints(np.random.default_rng(3), items[3].image, 0.5) for _ in range(2))
    assert (one[0] == again[0]).all() and (one[1] == again[1]).all()


def test_flood_fill_takes_the_hint_of_each_region():
    labels = np.zeros((20, 20), int)
    labels[5:15, 5:15], labels[5, 5:15] = 1, -1
    hints, hinted = np.full((20, 20, 3), 128, np.uint8), np.zeros((20, 20), bool)
    hints[8:10, 8:10], hinted[8:10, 8:10] = RED, True
    filled = flood_fill(labels, hints, hinted)
    assert (filled[10, 10] == RED).all() and (filled[0, 0] == 250).all() and not (filled == 128).any()


def test_right_and_wrong_hints_are_scored_apart():
    image = np.full((16, 16, 3), RED, np.uint8)
    hints, hinted = image.copy(), np.zeros((16, 16), np.float32)
    hints[:, 8:], hinted[:4] = BLUE, 1
    examples = [example_of(image, hints, hinted), example_of(image, hints, 0 * hinted)]
    truth = hint_metrics(Scoring([image, image], examples, None, 0))
    assert truth == {"delta_e_hints": [0.0, None], "wrong_followed": [0.0, None]}
    blue = np.full_like(image, BLUE)
    followed = hint_metrics(Scoring([blue, blue], examples, None, 0))
    assert followed["delta_e_hints"][0] > 30 and followed["wrong_followed"] == [1.0, None]


# --- a run


@pytest.mark.long
def test_training_uses_the_hints(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    validation = rows[-1]["validation"]
    assert validation["hints_shuffled"] > validation["right"]
    metrics = json.loads((trained / "metrics.json").read_text())["metrics"]
    assert metrics["flood_fill/delta_e_hints"]["higher_is_better"] is False and "sketch_f1" in metrics
    assert {"painting.png", "flood_fill.png"} <= {path.name for path in (trained / "samples/test/0000").iterdir()}


@pytest.mark.long
def test_dropped_hints_are_no_hints(trained):
    folder, cfg = RunFolder.read(str(trained), edited=True)
    parts, pipeline = load_run(folder, cfg)
    batch = collate(parts.examples("test").first(4))
    none = replace(batch, conditions={**batch.conditions, "hinted": 0 * batch.conditions["hinted"]})
    x, t = torch.randn(parts.codec.latent_shape(batch)), torch.full((4,), 500)
    dropped = {"hints": torch.zeros(4, dtype=torch.bool)}
    with torch.no_grad():
        one, two, three = (pipeline.last(b, x, t, k)[0].value for b, k in ((batch, dropped), (none, {}), (batch, {})))
    assert torch.equal(one, two) and not torch.allclose(one, three)


@pytest.mark.long
def test_a_painting_becomes_an_image(cli, refused, trained, painting, tmp_path):
    named = (f"run={trained}", f"out={tmp_path / 'out'}", "attention=false")
    status, _, err = cli(main, *named, f"sketch_image={painting}", 'prompt="a red circle"')
    assert status == 0, err
    shown = np.asarray(Image.open(tmp_path / "out/painting.png"))
    assert shown.shape == (32, 32, 3) and delta_e(to_lab(shown[15, 15]), to_lab(np.uint8(RED))) < 8
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["sketch_image"] == str(painting) and result["regions"] >= 2
    refused(main, *named, says=("sketch_image=: give either",))
    refused(main, *named, "sketch_image=absent.png", says=("absent.png",))


@pytest.mark.long
def test_a_batch_of_paintings(cli, trained, painting, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"sketch_image": "painting.png", "prompt": "a red circle"}\n')
    status, _, err = cli(main, f"run={trained}", f"out={tmp_path / 'out'}", f"batch={tmp_path / 'rows.jsonl'}")
    assert status == 0, err
    assert (tmp_path / "out/0000/stage1.png").exists()


@pytest.mark.long
def test_users_paintings_train(tiny, painting, tmp_path):
    rows = ["sketch_image,target_image,prompt"]
    for number in range(6):
        Image.new("RGB", (96, 96), (30 * number, 90, 90)).save(tmp_path / f"target{number}.png")
        rows.append(f"{painting.name},target{number}.png,a circle")
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    own = ["data=edits", f"data.table={tmp_path / 'rows.csv'}", "data.val_share=0.2", "data.test_share=0.2", "data.size=32"]
    words = [w for w in overrides(tiny, "stage.coarse.steps=2") if not w.startswith("data.")]
    path = run(compose_config([*words, *own, f"runs={tmp_path / 'runs'}"])).path
    metrics = json.loads((path / "metrics.json").read_text())["metrics"]
    assert "sketch_f1" in metrics and "wrong_followed" in metrics, "the painting's colours are not the target's"


# --- the study


@pytest.mark.long
def test_guidance_and_sdedit_are_measured(cli, refused, trained, finished, tmp_path):
    from ragaf_exp.evaluation.painting.__main__ import main as study

    out = tmp_path / "painting.json"
    named = (f"out={out}", "items=4", "guidance=[1,3]", "starts=[0.5]")
    status, printed, err = cli(study, f"run={trained}", *named)
    assert status == 0, err
    figures = json.loads(out.read_text())["figures"]
    names = {"guidance_1/wrong_followed", "guidance_3/wrong_followed", "sdedit_0.5/sketch_f1", "paint/sketch_f1"}
    assert names <= set(figures)
    assert figures["flood_fill/delta_e_hints"]["value"] < 15 and "SDEdit from 0.5" in printed
    assert "guidance_1/delta_e_hints" not in figures, "no hint is right there"
    refused(study, f"run={finished}", *named, says=("its task has no colour hints",))
    refused(study, f"run={trained}", f"out={out}", "starts=[2]", says=("starts=[2]: each must be between",))
    refused(study, f"run={trained}", f"out={out}", "guidance=[a]", says=("must be numbers",))
