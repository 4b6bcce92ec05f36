"""Binding on ground truth, on swapped colours, and on everything between painted and not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from eval.metrics.binding import BACKGROUND, bind, binding_figures
from ragaf_exp.data.palette import BACKGROUND_COLOURS, OBJECT_COLOURS
from ragaf_exp.data.scenes import Scenes
from ragaf_exp.types import Item, SceneObject

PAPER = BACKGROUND_COLOURS["beige"]
LEFT, RIGHT = (slice(20, 44), slice(6, 28)), (slice(20, 44), slice(36, 58))


def judge(image: np.ndarray, item: Item):
    return bind(image, item.objects, item.object_map, OBJECT_COLOURS, BACKGROUND_COLOURS)


def pair(left: str | None, right: str | None, paper: tuple = PAPER, wanted: tuple = ("red", "blue")) -> list:
    """Two squares painted with named colours, or not at all, where the caption wants red and blue."""
    image, labels = np.full((64, 64, 3), paper, np.uint8), np.zeros((64, 64), np.uint8)
    for label, (box, colour) in enumerate(((LEFT, left), (RIGHT, right)), 1):
        labels[box] = label
        if colour:
            image[box] = OBJECT_COLOURS[colour]
    objects = tuple(SceneObject(i + 1, "square", colour, "plain", (0, 1)) for i, colour in enumerate(wanted))
    return bind(image, objects, labels, OBJECT_COLOURS, BACKGROUND_COLOURS)


@pytest.mark.parametrize(("size", "count"), [(64, 200), (128, 40)])
def test_ground_truth_is_bound(size, count):
    test = Scenes(size=size).split("test")
    figures = binding_figures([judge(test[i].image, test[i]) for i in range(count)], weights="none")
    assert figures["binding_accuracy"]["value"] == 1.0
    assert figures["binding_accuracy_heldout"]["value"] == 1.0
    assert figures["leak_rate"]["value"] == 0.0
    assert figures["fill_accuracy"]["value"] >= 0.97
    assert figures["binding_accuracy"]["items"] == count and figures["leak_rate"]["higher_is_better"] is False


def test_blur_and_noise_change_little():
    test, rng = Scenes().split("test"), np.random.default_rng(0)
    results = []
    for item in (test[i] for i in range(60)):
        soft = cv2.GaussianBlur(item.image.astype(np.float32), (0, 0), 0.8)
        results.append(judge(np.clip(soft + rng.normal(0, 4, soft.shape), 0, 255).astype(np.uint8), item))
    figures = binding_figures(results)
    assert figures["binding_accuracy"]["value"] == 1.0
    assert figures["fill_accuracy"]["value"] >= 0.95


def test_swapped_colours_are_leaks():
    swapped = pair("blue", "red")
    assert [b.found_colour for b in swapped] == ["blue", "red"]
    assert not any(b.correct for b in swapped) and all(b.leaked for b in swapped)
    half = binding_figures([pair("red", "red"), pair("red", "blue"), pair("green", "blue")])
    assert half["binding_accuracy"]["value"] == pytest.approx(4 / 6)
    assert half["leak_rate"]["value"] == pytest.approx(1 / 6)
    assert "binding_accuracy_heldout" not in half


@pytest.mark.parametrize("paper", [PAPER, (225, 140, 60), (120, 130, 230)])
def test_an_unpainted_object_is_not_bound(paper):
    """Not even where the background strayed to a colour that is nearest to the wanted one."""
    left, right = pair(None, "green", paper, ("orange", "blue"))
    assert (left.found_colour, left.found_fill) == (BACKGROUND, BACKGROUND)
    assert not (left.correct or left.leaked or left.fill_correct)
    assert right.found_colour == "green" and not right.leaked


@pytest.mark.parametrize("wall", [1, 2, 4])
@pytest.mark.parametrize("full", [False, True])
def test_a_ring_keeps_its_hole(wall, full):
    image, labels = np.full((64, 64, 3), PAPER, np.uint8), np.zeros((64, 64), np.uint8)
    cv2.circle(labels, (32, 32), 15, 1, wall)
    image[labels == 1] = OBJECT_COLOURS["pink"]
    if full:
        cv2.circle(image, (32, 32), 15, OBJECT_COLOURS["pink"], -1)
    ring = SceneObject(1, "circle", "pink", "hollow", (0, 1))
    (found,) = bind(image, [ring], labels, OBJECT_COLOURS, BACKGROUND_COLOURS)
    assert found.correct and found.fill_correct is not full
    assert found.found_fill == ("plain" if full else "hollow")


def test_shading_is_no_pattern():
    image, labels = np.full((64, 64, 3), PAPER, np.uint8), np.zeros((64, 64), np.uint8)
    labels[12:52, 12:52] = 1
    light = np.linspace(0.85, 1.0, 40)[:, None, None]
    image[12:52, 12:52] = np.array(OBJECT_COLOURS["green"]) * light
    (found,) = bind(image, [SceneObject(1, "square", "green", "plain", (0, 1))], labels, OBJECT_COLOURS, {})
    assert found.correct and found.fill_correct


def test_wrong_input_is_named():
    item = Scenes().split("test")[0]
    with pytest.raises(ValueError, match="uint8"):
        judge(item.image / 255.0, item)
    with pytest.raises(ValueError, match="no pixels"):
        bind(item.image, item.objects, item.object_map * 0, OBJECT_COLOURS, BACKGROUND_COLOURS)
    with pytest.raises(ValueError, match="palette has"):
        bind(item.image, item.objects, item.object_map, {"black": (0, 0, 0)}, BACKGROUND_COLOURS)
