"""Region prompts measured: the control, the metrics and the command, tested with simulated painters."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ragaf_exp.assembly.assemble import preparer
from ragaf_exp.config.compose import compose_config
from ragaf_exp.data.loader import region_objects
from ragaf_exp.data.sources.palette import OBJECT_COLOURS
from ragaf_exp.data.sources.scenes import Scenes
from ragaf_exp.evaluation.controls import score
from ragaf_exp.evaluation.controls.interventions import CONTROLS
from ragaf_exp.evaluation.editing.__main__ import main
from ragaf_exp.evaluation.editing.rim import rim_roughness
from ragaf_exp.evaluation.prompted import prompted_values

NAMES = ("right", "region_prompt")


@pytest.fixture(scope="module")
def examples() -> list:
    prepare = preparer(compose_config([]))
    return [prepare(item) for item in Scenes(test=12).split("test")]


def painted(example, reads_prompts: bool) -> np.ndarray:
    """The true image, with prompted objects in the colour of their prompt."""
    image = example.item.image.copy()
    if example.edits is not None and reads_prompts:
        for edit, owner in zip(example.edits.regions, region_objects(example), strict=True):
            if edit.prompt:
                colour = OBJECT_COLOURS[edit.prompt.split()[-1]]
                image[example.item.object_map == example.item.objects[owner].label] = colour
    return image


def figures(examples, reads_prompts: bool) -> dict[str, float]:
    changed = {name: score._changed(name, examples, 0) for name in NAMES}
    drawn = {name: [c and painted(c.example, reads_prompts) for c in of] for name, of in changed.items()}
    content = score.score_controls(examples, changed, drawn, 100)["region_prompt"]
    return {name: entry["value"] for name, entry in content["figures"].items()}


def test_a_region_prompt_contradicts_the_caption_which_stays(examples):
    for example, changed in zip(examples, score._changed("region_prompt", examples, 0), strict=True):
        assert changed.example.item.caption == example.item.caption
        (place,) = changed.touched
        colour = changed.judged.objects[place].colour
        assert colour not in example.item.caption
        prompted = [bool(edit.prompt) for edit in changed.example.edits.regions]
        assert np.array_equal(prompted, region_objects(example) == place)


def test_an_object_without_a_region_can_t_be_prompted(examples):
    nowhere = replace(examples[0].item, object_map=np.zeros_like(examples[0].item.object_map))
    bare = replace(examples[0], item=nowhere)
    assert CONTROLS["region_prompt"].change(bare, bare, np.random.default_rng(0)) is None


def test_a_painter_that_follows_prompts_and_one_that_does_not(examples):
    assert figures(examples, True)["followed"] == 1 and figures(examples, True)["others_changed"] == 0
    assert figures(examples, False)["followed"] == 0 and figures(examples, False)["change_inside"] == 0


def test_binding_with_prompts_is_of_the_first_items_each_with_its_own_phrases(examples):
    sampled = []

    def sample(some):
        sampled.extend(some)
        return SimpleNamespace(final=[example.item.image for example in some])

    rows = [SimpleNamespace(key=e.item.key, image="", sketch="") for e in examples]
    cache = SimpleNamespace(batch=lambda names, make: make())
    values = prompted_values(examples, rows, [[0, 3], [], [1, 2, 4]], cache, sample)
    assert [row is None for row in values["binding_accuracy_prompted"]] == [False] * 5 + [True] * 7
    assert set(values) == {"binding_accuracy_prompted", "leak_rate_prompted"} and len(sampled) == 5
    for example in sampled:
        for edit, owner in zip(example.edits.regions, region_objects(example), strict=True):
            span = example.item.objects[owner].span if owner >= 0 else (0, 0)
            assert edit.prompt == example.item.caption[slice(*span)]


def test_a_run_measures_them(finished):
    metrics = json.loads((finished / "metrics.json").read_text())["metrics"]
    for name in ("binding_accuracy_prompted", "leak_rate_prompted"):
        assert metrics[name]["n"] == metrics["binding_accuracy"]["n"] and 0 <= metrics[name]["value"] <= 1
    assert not metrics["leak_rate_prompted"]["higher_is_better"]


def test_the_command_measures_a_run(cli, finished, tmp_path):
    out = tmp_path / "editing.json"
    status, text, err = cli(main, f"run={finished}", "items=4", f"out={out}")
    assert status == 0, err
    measured = json.loads(out.read_text())["figures"]
    assert measured["keep_pixels_equal"]["value"] == 1 and measured["prompt_followed"]["n"] == 4
    assert all(name in text for name in measured) and {"repeated_by_prompts", "rim_change"} <= set(measured)
    status, _, _ = cli(main, f"run={finished}", "items=4", f"out={out}", "only='[prompt]'")
    assert status == 0 and set(json.loads(out.read_text())["figures"]) == {
        "prompt_followed", "prompt_others_changed", "prompt_word_followed"
    }  # fmt: skip


@pytest.mark.parametrize("words, says", [("items=1", "at least 2"), ("only=colour", "unknown"), ("", "missing")])
def test_mistakes_are_one_line(words, says, refused, finished):
    run = [f"run={finished}"] if words else []
    refused(main, *run, *([words] if words else []), says=(says,))


def test_a_rim_of_the_old_colour_makes_a_border_rough():
    mask = cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), 15, 1, -1) > 0
    clean = np.where(mask[..., None], np.uint8(200), np.uint8(80)).repeat(3, 2)
    rim = clean.copy()
    rim[cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~mask] = 20
    assert rim_roughness(rim, mask) > 1.3 * rim_roughness(clean, mask) > 0 == rim_roughness(clean, mask & False)
