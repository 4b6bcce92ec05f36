"""Controls: edited captions, and the figures of simulated painters that follow all words or none."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.assembly.assemble import preparer
from ragaf_exp.config.compose import compose_config
from ragaf_exp.data.loader import collate
from ragaf_exp.data.sources.palette import OBJECT_COLOURS
from ragaf_exp.data.sources.scenes import Scenes
from ragaf_exp.evaluation.controls import edits, score
from ragaf_exp.evaluation.controls.__main__ import main
from ragaf_exp.evaluation.controls.interventions import CONTROLS
from ragaf_exp.inference.load import load_run
from ragaf_exp.runs.folder import RunFolder

TEST = Scenes(repeat_share=0.0).split("test")
WORD = re.compile(rf"({'|'.join(OBJECT_COLOURS)}) (\w+)")
indices = st.integers(0, 60)


def colours_of(caption: str) -> dict[str, str]:
    """shape -> colour in a caption without repeated shapes."""
    return {shape: colour for colour, shape in WORD.findall(caption) if shape != "background"}


def spans_hold(item) -> bool:
    return all(f"{o.colour} {o.shape}" in item.caption[slice(*o.span)] for o in item.objects)


@settings(deadline=None)
@given(indices)
def test_a_swap_exchanges_two_colours_and_nothing_else(index):
    item = TEST[index]
    swap = edits.swapped(item, np.random.default_rng(index))
    if swap is None:
        assert len({o.colour for o in item.objects}) == 1
        return
    new, (i, j) = swap
    before, after = ([o.colour for o in x.objects] for x in (item, new))
    assert before[i] != before[j] and after[i] == before[j] and after[j] == before[i]
    assert [c for k, c in enumerate(after) if k not in (i, j)] == [c for k, c in enumerate(before) if k not in (i, j)]
    assert colours_of(new.caption) == {o.shape: o.colour for o in new.objects} and spans_hold(new)
    assert re.search(r"\ba [aeiou]\w+ (?!background)", new.caption) is None and new.image is item.image


@given(indices)
def test_one_word_is_one_word_and_new_to_the_scene(index):
    item = TEST[index]
    new, place = edits.one_word(item, np.random.default_rng(index))
    assert new.objects[place].colour not in [o.colour for o in item.objects] and spans_hold(new)
    strip = [re.sub(r"\ban\b", "a", x.caption).split() for x in (item, new)]
    assert sum(a != b for a, b in zip(*strip, strict=True)) == 1


@given(indices)
def test_turned_round_twice_is_the_same_and_once_says_the_same(index):
    item = TEST[index]
    new = edits.turned_round(item)
    assert new.caption != item.caption and spans_hold(new) and colours_of(new.caption) == colours_of(item.caption)
    assert [o.label for o in new.objects] == [o.label for o in item.objects]
    for words, other in edits.OPPOSITE.items():
        assert item.caption.count(words) == new.caption.count(other)
    order = sorted(new.objects, key=lambda o: o.span)
    assert [o.label for o in order] == [o.label for o in item.objects][::-1]


def test_turned_round_of_a_list():
    item = replace(TEST[0], caption="a red key, a blue cup and a green bell on a mint background")
    spans = [(0, 9), (11, 21), (26, 38)]
    objects = tuple(replace(TEST[0].objects[0], label=i + 1, span=s) for i, s in enumerate(spans))
    turned = edits.turned_round(replace(item, objects=objects))
    assert turned.caption == "a green bell, a blue cup and a red key on a mint background"
    assert [turned.caption[slice(*o.span)] for o in turned.objects] == ["a red key", "a blue cup", "a green bell"]


def test_a_colour_that_its_phrase_lacks_is_an_error():
    strange = replace(TEST[0], objects=tuple(replace(o, colour="plaid") for o in TEST[0].objects))
    with pytest.raises(ValueError, match="does not hold plaid"):
        edits.one_word(strange, np.random.default_rng(0))


# --- painters


@pytest.fixture(scope="module")
def examples():
    prepare = preparer(compose_config([]))
    return [prepare(TEST[i]) for i in range(16)]


class Painter:
    """Paints each object, its mask known by the item's key, in the colour that `hears` finds for it."""

    last = SimpleNamespace(needs_spans=False)

    def __init__(self, examples, hears):
        self.items, self.hears = {e.item.key: e.item for e in examples}, hears

    def __call__(self, batch):
        images = [self.paint(self.items[k], c) for k, c in zip(batch.keys, batch.captions, strict=True)]
        return SimpleNamespace(to_images=lambda: SimpleNamespace(final=np.stack(images)))

    def paint(self, item, caption):
        image = np.full((64, 64, 3), 250, np.uint8)
        for thing in item.objects:
            image[item.object_map == thing.label] = OBJECT_COLOURS[self.hears(thing, colours_of(caption))]
        return image


def judged(examples, hears):
    painter = Painter(examples, hears)
    changed = {name: score._changed(name, examples, 0) for name in CONTROLS}
    drawn = {name: score.sample(painter, of, 5, name) for name, of in changed.items()}
    return score.score_controls(examples, changed, drawn, 50), changed, drawn


def values(results, name):
    return {figure: entry["value"] for figure, entry in results[name]["figures"].items()}


def test_a_painter_that_follows_every_word(examples):
    results, changed, drawn = judged(examples, lambda thing, words: words.get(thing.shape, "pink"))
    assert set(results) == set(CONTROLS)
    for name in ("right", "graphs_shuffled", "phrases_permuted", "half_the_steps"):
        assert values(results, name) == {"binding_accuracy": 1.0, "leak_rate": 0.0}
    assert results["captions_shuffled"]["figures"]["binding_accuracy"]["value"] < 0.5
    assert results["captions_shuffled"]["difference"]["binding_accuracy"]["high"] < -0.3
    assert values(results, "colours_swapped") == {"followed": 1, "kept_old": 0, "others_bound": 1, "others_changed": 0}
    alone = values(results, "one_word")
    assert alone["followed"] == 1 and alone["others_changed"] == 0 and alone["change_outside"] == 0
    assert alone["change_inside"] > 0.1
    shown = score.picture(examples, changed, drawn)
    assert shown.ndim == 3 and shown.shape[1] > 7 * 128


def test_a_painter_that_follows_no_word(examples):
    results, _, _ = judged(examples, lambda thing, words: thing.colour)
    assert values(results, "captions_shuffled")["binding_accuracy"] == 1, "it does not read captions"
    swap = values(results, "colours_swapped")
    assert swap["followed"] == 0 and swap["kept_old"] == 1
    assert values(results, "one_word")["change_inside"] == 0


def test_a_painter_that_mixes_words_up_leaks(examples):
    def hears(thing, words):
        return sorted(words.values())[0]

    results, _, _ = judged(examples, hears)
    assert values(results, "right")["leak_rate"] > 0.4 and values(results, "one_word")["change_outside"] > 0


def test_a_change_that_cannot_be_made_is_left_out(examples):
    one = [replace(e, item=edits.with_colours(e.item, ["red"] * len(e.item.objects))) for e in examples[:3]]
    changed = score._changed("colours_swapped", one, 0)
    assert changed == [None] * 3 and score.sample(None, changed, 4, "none") == [None] * 3


# --- the command


def test_the_command_on_a_run(finished, cli, tmp_path):
    status, out, err = cli(main, f"run={finished}", f"out={tmp_path / 'c.json'}", "items=3")
    assert status == 0, err
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["schema"] == 1 and content["items"] == 3 and set(content["controls"]) == set(CONTROLS)
    assert 0.1 < content["chance"] < 1 and "colours_swapped" in out and (tmp_path / "c.png").exists()
    figures = content["controls"]["one_word"]["figures"]
    assert {"followed", "change_outside"} <= set(figures) and len(figures["followed"]["ci95"]) == 2
    assert not (finished / "controls.json").exists()


def counted(calls, name, function, *given):
    calls[name] += 1
    return function(*given)


def test_half_the_steps_takes_no_more_calls_than_stage_1_alone(finished, monkeypatch):
    folder, cfg = RunFolder.read(finished)
    parts, pipeline = load_run(folder, cfg)
    batch, calls = collate([parts.examples("test")[0]]), Counter()
    for name, model in pipeline.models.items():
        monkeypatch.setattr(model, "denoise", partial(counted, calls, name, model.denoise))
    pipeline(batch)
    whole = calls.copy()
    calls.clear()
    score.with_step_share(pipeline, 0.5)(batch)
    assert calls["coarse"] and calls["refine"] and calls.total() <= whole["coarse"] == cfg.sampler.steps
    assert pipeline.sampler.steps == cfg.sampler.steps
    odd = SimpleNamespace(sampler=SimpleNamespace(steps=7))
    assert score.with_step_share(odd, 0.5).sampler.steps == 3, "rounded up, both stages would have more than 7"


@pytest.mark.parametrize("words", ["", "run=nowhere", "run=x items=1"])
def test_mistakes(words, refused):
    refused(main, *words.split(), says=(words.split()[-1].replace("run=", "") if words else "run=?",))
