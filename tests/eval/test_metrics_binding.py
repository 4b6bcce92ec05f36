"""Binding on ground truth, on swapped colours, and on everything between painted and not."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from eval.metrics.binding import BACKGROUND, ObjectBinding, bind, binding_splits, binding_values
from ragaf_exp.core.types import Item, SceneObject
from ragaf_exp.data.sources.openmoji import OpenMoji
from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS, OBJECT_COLOURS
from ragaf_exp.data.sources.scenes import Scenes

PAPER = BACKGROUND_COLOURS["beige"]
LEFT, RIGHT = (slice(20, 44), slice(6, 28)), (slice(20, 44), slice(36, 58))


class Swapped(Scenes):
    """Scenes whose images give every object the next one's colour; captions and all else are as they were."""

    def _draw(self, rng, specs, centres, background):
        turned = [replace(spec, colour=other.colour) for spec, other in zip(specs, specs[1:] + specs[:1], strict=True)]
        return super()._draw(rng, turned, centres, background)


def judge(image: np.ndarray, item: Item) -> list[ObjectBinding]:
    return bind(image, item.objects, item.object_map, OBJECT_COLOURS, BACKGROUND_COLOURS)


def means(scenes: list[list[ObjectBinding]]) -> dict[str, float]:
    """Mean of each figure over the objects that have it; figures that no object has are left out."""
    values: dict[str, list[float]] = {}
    for scene in scenes:
        for name, of_objects in binding_values(scene).items():
            values.setdefault(name, []).extend(v for v in of_objects if v is not None)
    return {name: float(np.mean(v)) for name, v in values.items() if v}


def pair(left: str | None, right: str | None, paper: tuple = PAPER, wanted: tuple = ("red", "blue")) -> list:
    """Two squares painted with named colours, or not at all, where the caption wants red and blue."""
    image, labels = np.full((64, 64, 3), paper, np.uint8), np.zeros((64, 64), np.uint8)
    for label, (box, colour) in enumerate(((LEFT, left), (RIGHT, right)), 1):
        labels[box] = label
        if colour:
            image[box] = OBJECT_COLOURS[colour]
    objects = tuple(SceneObject(i + 1, "square", colour, "plain", (0, 1)) for i, colour in enumerate(wanted))
    return bind(image, objects, labels, OBJECT_COLOURS, BACKGROUND_COLOURS)


@pytest.mark.parametrize(
    ("size", "count", "split"), [(64, 300, "test"), (64, 200, "train"), (128, 60, "test"), (256, 60, "test")]
)
def test_ground_truth_is_bound(size, count, split):
    """Colours and fills, all of them: what a perfect model can reach."""
    items = Scenes(size=size, test=count).split(split)
    figures = means([judge(items[i].image, items[i]) for i in range(count)])
    wanted = {"binding_accuracy": 1.0, "binding_accuracy_repeated": 1.0, "leak_rate": 0.0, "fill_accuracy": 1.0,
              "instance_success": 1.0}  # fmt: skip
    assert figures.pop("instance_iou") > 0.9
    assert figures == wanted | ({"binding_accuracy_heldout": 1.0} if split == "test" else {})


def test_real_drawings_are_bound_nearly(shared_data):
    """Recoloured OpenMoji in scenes: but for those that are mostly white inside, as a spotted mushroom is."""
    items = OpenMoji(root=str(shared_data / "openmoji72"), scenes=True, recolour=True).split("test")
    figures = means([judge(items[i].image, items[i]) for i in range(120)])
    assert figures["binding_accuracy"] > 0.985 and figures["leak_rate"] == 0.0


def test_below_64_px_colours_are_exact_and_fills_nearly():
    items = Scenes(size=32).split("test")
    figures = means([judge(items[i].image, items[i]) for i in range(100)])
    assert figures["binding_accuracy"] == 1.0 and figures["leak_rate"] == 0.0
    assert figures["fill_accuracy"] > 0.85


def test_images_with_swapped_colours_are_judged_by_the_colours_that_they_show():
    """Every object has the colour of the next: right where that is the same one, a leak where it is not."""
    swapped, same = Swapped().split("test"), 0
    for item in (swapped[i] for i in range(200)):  # with the caption and the objects of the scene as it was
        wanted = [thing.colour for thing in (*item.objects[1:], item.objects[0])]
        for binding, colour in zip(judge(item.image, item), wanted, strict=True):
            assert binding.detected_colour == colour and binding.fill_correct
            assert binding.correct == (colour == binding.object.colour) == (not binding.leaked)
            same += binding.correct
    assert 0 < same < 200  # neighbours of one colour occur


def test_a_swap_of_two_leaves_the_others_right():
    item, other = (source.split("test")[7] for source in (Scenes(min_objects=4), Swapped(min_objects=4)))
    things = item.objects
    turned = (item.object_map == things[0].label)[..., None]
    bindings = judge(np.where(turned, other.image, item.image), item)
    leaks = things[0].colour != things[1].colour
    assert [b.leaked for b in bindings] == [leaks] + [False] * (len(things) - 1)
    assert leaks and binding_values(bindings)["binding_accuracy"] == [0.0] + [1.0] * (len(things) - 1)


def test_blur_and_noise_change_little():
    test, rng = Scenes().split("test"), np.random.default_rng(0)
    results = []
    for item in (test[i] for i in range(60)):
        soft = cv2.GaussianBlur(item.image.astype(np.float32), (0, 0), 0.8)
        results.append(judge(np.clip(soft + rng.normal(0, 4, soft.shape), 0, 255).astype(np.uint8), item))
    figures = means(results)
    assert figures["binding_accuracy"] == 1.0 and figures["fill_accuracy"] >= 0.95


def test_swapped_colours_are_leaks():
    swapped = pair("blue", "red")
    assert [b.detected_colour for b in swapped] == ["blue", "red"]
    assert not any(b.correct for b in swapped) and all(b.leaked for b in swapped)
    half = means([pair("red", "red"), pair("red", "blue"), pair("green", "blue")])
    assert half["binding_accuracy"] == pytest.approx(4 / 6)
    assert half["leak_rate"] == pytest.approx(1 / 6)
    assert "binding_accuracy_heldout" not in half


def known(correct: str, *, heldout: str = "", repeated: str = "", fill: str = "plain") -> list[ObjectBinding]:
    """A scene of red objects by letters: those in `correct` are red, others blue, which one of them should be."""
    objects = [SceneObject(i, "square", "red", fill, (0, 1), c in heldout, c in repeated) for i, c in enumerate("abc")]
    return [ObjectBinding(thing, "red" if c in correct else "blue", "plain", c in correct, c not in correct, True)
            for thing, c in zip(objects, "abc", strict=True)]  # fmt: skip


def test_splits_by_count_shapes_and_pairs():
    scenes = [known("ab", heldout="c"), known("abc", heldout="a", repeated="bc")[:2], None, known("", fill="")]
    splits = binding_splits(scenes, weights="ema", resamples=50)
    rates = {
        fact: {g["group"]: (g["items"], g["metrics"]["binding_accuracy"]["n"], g["metrics"]["binding_accuracy"]["value"],
                            g["metrics"]["leak_rate"]["value"]) for g in split["groups"]}
        for fact, split in splits.items()
    }  # fmt: skip
    third = pytest.approx(2 / 6), pytest.approx(4 / 6)
    assert rates == {
        "objects": {"2": (1, 2, 1.0, 0.0), "3": (2, 6, *third)},
        "shapes": {"distinct": (3, 7, pytest.approx(3 / 7), pytest.approx(4 / 7)), "repeated": (1, 1, 1.0, 0.0)},
        "pairs": {"seen": (3, 6, 0.5, 0.5), "heldout": (2, 2, 0.5, 0.5)},
    }
    assert [list(rates[fact]) for fact in rates] == [["2", "3"], ["distinct", "repeated"], ["seen", "heldout"]]
    assert {split["without"] for split in splits.values()} == {1}
    entry = splits["pairs"]["groups"][0]["metrics"]["leak_rate"]
    assert entry["weights"] == "ema" and entry["higher_is_better"] is False and entry["items"] == 3
    assert splits["objects"]["groups"][1]["metrics"]["fill_accuracy"]["n"] == 3  # where the caption names a fill
    assert binding_splits([None]) == {} and binding_splits([]) == {}


def test_splits_of_real_scenes_add_up():
    test = Scenes().split("test")
    scenes = [judge(test[i].image, test[i]) for i in range(120)]
    for fact, split in binding_splits(scenes, resamples=50).items():
        counts = [g["metrics"]["binding_accuracy"]["n"] for g in split["groups"]]
        assert sum(counts) == sum(map(len, scenes)) and len(counts) == (4 if fact == "objects" else 2)


def test_a_pixel_left_open_is_no_hole():
    """Drawing a narrow notch may enclose a pixel; a ring's hole is as deep as the rim."""
    labels = np.zeros((256, 256), np.uint8)
    cv2.circle(labels, (128, 128), 60, 1, -1)
    image = np.full((256, 256, 3), PAPER, np.uint8)
    image[labels == 1] = OBJECT_COLOURS["pink"]
    labels[100, 128] = 0
    image[100, 128] = PAPER
    (binding,) = bind(image, [SceneObject(1, "heart", "pink", "plain", (0, 1))], labels, OBJECT_COLOURS, BACKGROUND_COLOURS)
    assert binding.correct and binding.detected_fill == "plain"


@pytest.mark.parametrize("paper", [PAPER, (225, 140, 60), (120, 130, 230)])
def test_an_unpainted_object_is_not_bound(paper):
    """Even where the background has a colour that is nearest to the wanted one."""
    left, right = pair(None, "green", paper, ("orange", "blue"))
    assert (left.detected_colour, left.detected_fill) == (BACKGROUND, BACKGROUND)
    assert not (left.correct or left.leaked or left.fill_correct)
    assert right.detected_colour == "green" and not right.leaked


@pytest.mark.parametrize("wall", [1, 2, 4])
@pytest.mark.parametrize("full", [False, True])
def test_a_ring_keeps_its_hole(wall, full):
    image, labels = np.full((64, 64, 3), PAPER, np.uint8), np.zeros((64, 64), np.uint8)
    cv2.circle(labels, (32, 32), 15, 1, wall)
    image[labels == 1] = OBJECT_COLOURS["pink"]
    if full:
        cv2.circle(image, (32, 32), 15, OBJECT_COLOURS["pink"], -1)
    ring = SceneObject(1, "circle", "pink", "hollow", (0, 1))
    (binding,) = bind(image, [ring], labels, OBJECT_COLOURS, BACKGROUND_COLOURS)
    assert binding.correct and binding.fill_correct is not full
    assert binding.detected_fill == ("plain" if full else "hollow")


def test_shading_is_no_pattern():
    image, labels = np.full((64, 64, 3), PAPER, np.uint8), np.zeros((64, 64), np.uint8)
    labels[12:52, 12:52] = 1
    light = np.linspace(0.85, 1.0, 40)[:, None, None]
    image[12:52, 12:52] = np.array(OBJECT_COLOURS["green"]) * light
    (binding,) = bind(image, [SceneObject(1, "square", "green", "plain", (0, 1))], labels, OBJECT_COLOURS, {})
    assert binding.correct and binding.fill_correct


def test_wrong_input_is_named():
    item = Scenes().split("test")[0]
    with pytest.raises(ValueError, match="uint8"):
        judge(item.image / 255.0, item)
    with pytest.raises(ValueError, match="no pixels"):
        bind(item.image, item.objects, item.object_map * 0, OBJECT_COLOURS, BACKGROUND_COLOURS)
    with pytest.raises(ValueError, match="palette has"):
        bind(item.image, item.objects, item.object_map, {"black": (0, 0, 0)}, BACKGROUND_COLOURS)


def test_instance_success_of_truth_and_of_swapped_colours():
    """COCO-MIG's rule with true masks: the truth is the ceiling, and its colours in another order the floor."""
    truth, swapped = Scenes(test=80).split("test"), Swapped(test=80).split("test")
    right = means([judge(truth[i].image, truth[i]) for i in range(80)])
    wrong = means([judge(swapped[i].image, swapped[i]) for i in range(80)])
    assert right["instance_success"] == 1.0 and right["instance_iou"] > 0.9
    # neighbours that share a colour stay right
    assert (
        wrong["instance_success"] == pytest.approx(wrong["binding_accuracy"], abs=0.02) and wrong["instance_success"] < 0.15
    )


@pytest.mark.parametrize(
    ("paint", "success"),
    [((slice(20, 44), slice(6, 28)), True), ((slice(20, 44), slice(6, 15)), False), ((slice(0, 64), slice(0, 36)), False)],
    ids=["as its mask", "less than half of it", "far beyond it"],
)
def test_instance_success_needs_half_of_the_mask_and_little_more(paint, success):
    image, labels = np.full((64, 64, 3), PAPER, np.uint8), np.zeros((64, 64), np.uint8)
    labels[LEFT] = 1
    image[paint] = OBJECT_COLOURS["red"]
    (one,) = bind(image, (SceneObject(1, "square", "red", "plain", (0, 1)),), labels, OBJECT_COLOURS, BACKGROUND_COLOURS)
    assert one.success == success


def test_instance_success_allows_other_colours_on_most_of_an_object():
    """A fifth of the pixels is enough there; binding needs most of them."""
    image, labels = np.full((64, 64, 3), PAPER, np.uint8), np.zeros((64, 64), np.uint8)
    labels[LEFT] = 1
    image[LEFT] = OBJECT_COLOURS["blue"]
    image[20:44, 6:12] = OBJECT_COLOURS["red"]
    (one,) = bind(image, (SceneObject(1, "square", "red", "plain", (0, 1)),), labels, OBJECT_COLOURS, BACKGROUND_COLOURS)
    assert one.success and not one.correct
