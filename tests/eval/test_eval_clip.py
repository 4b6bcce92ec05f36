"""CLIP scores of image sets, with a small random model and with one that embeds colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from tiny_clip import save

from eval.clip.crops import crop
from eval.clip.scores import Clip, PhraseRegions, caption_scores, edit_scores, region_scores
from eval.images import ImageSet
from eval.items import ItemRow, add_values, figure_of
from eval.metrics.clip import clip_scores, directional_scores
from ragaf_exp.core.errors import UserError

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
FILL = (128, 128, 128)
CAPTIONS = ["a red star", "a dog on grass", "two cats", "A red  star"]


def photo(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


IMAGES = [photo(i, 32 + 4 * i) for i in range(4)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return Clip(**save(tmp_path_factory.mktemp("clip")), device="cpu")


class ColourClip:
    """Embeds an image as the mean colour outside FILL, and a phrase as the colour that its first word names."""

    mean = FILL

    def images(self, pictures: Iterable[np.ndarray], total: int | None = None) -> np.ndarray:
        means = [p[(p != FILL).any(-1)].mean(0) for p in pictures]
        return np.array(means).reshape(-1, 3)

    def texts(self, captions: Sequence[str]) -> np.ndarray:
        return np.array([COLOURS[c.split()[0].lower()] for c in captions], float).reshape(-1, 3)

    def facts(self) -> dict[str, Any]:
        return {"network": "colours"}


def test_scores_are_those_of_the_pairs(clip):
    scores = caption_scores(clip, IMAGES, CAPTIONS)
    image_features, text_features = clip.images(IMAGES), clip.texts(CAPTIONS)
    assert scores.values["clip_score"] == pytest.approx(clip_scores(image_features, text_features), abs=1e-4)
    every = {round(v, 3) for text in text_features for v in clip_scores(image_features, np.stack([text] * 4))}
    assert {round(v, 3) for v in scores.values["clip_score_shuffled"]} <= every
    assert max(scores.values["clip_score"] + scores.values["clip_score_shuffled"]) > 0, "or nothing was tested"
    facts = scores.facts["clip_score"]
    assert facts["score"] == "100 max(cos, 0)" and facts["truncated_captions"] == 0
    assert facts["network_checksum"] == clip.checksum
    assert scores.facts["clip_score_shuffled"]["seed"] == 0


def test_the_floor_is_another_caption(clip, monkeypatch):
    """With embeddings that only match their own caption, the score is 100 and its floor 0."""
    eye = {" ".join(c.lower().split()): row for c, row in zip(CAPTIONS[:3], np.eye(3), strict=True)}
    monkeypatch.setattr(clip, "texts", lambda captions: np.stack([eye[" ".join(c.lower().split())] for c in captions]))
    features = np.eye(3)[[0, 1, 2, 0]]
    scores = caption_scores(clip, IMAGES, CAPTIONS, features=features)
    assert scores.values == {"clip_score": [100.0] * 4, "clip_score_shuffled": [0.0] * 4}


def test_the_floor_is_the_same_for_the_same_seed(clip):
    features = clip.images(IMAGES)
    floors = [caption_scores(clip, IMAGES, list("abcd"), seed=s, features=features) for s in (0, 0, 1, 2, 3)]
    values = [f.values["clip_score_shuffled"] for f in floors]
    assert values[0] == values[1] and any(v != values[0] for v in values[2:])


def test_images_without_a_caption_or_another_one_are_counted(clip):
    scores = caption_scores(clip, IMAGES, ["a dog", " ", "a Dog", "a dog "])
    assert scores.values["clip_score"][1] is None and scores.values["clip_score"][0] is not None
    assert scores.values["clip_score_shuffled"] == [None] * 4
    assert scores.facts["clip_score"]["without_caption"] == 1
    assert scores.facts["clip_score_shuffled"]["left_out"] == 3
    assert caption_scores(clip, [], []).values == {"clip_score": [], "clip_score_shuffled": []}


def test_scores_become_figures(clip):
    rows = [ItemRow(str(i)) for i in range(4)]
    scores = caption_scores(clip, IMAGES, CAPTIONS)
    for name, values in scores.values.items():
        add_values(rows, name, values)
    entry = figure_of(rows, "clip_score", higher_is_better=True, **scores.facts["clip_score"])
    assert entry["n"] == 4 and entry["value"] == pytest.approx(np.mean(scores.values["clip_score"]))


def test_lazy_sets_score_as_arrays_do(clip, tmp_path):
    import cv2

    for i, image in enumerate(IMAGES):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image[..., ::-1])
    assert caption_scores(clip, ImageSet.folder(tmp_path), CAPTIONS) == caption_scores(clip, IMAGES, CAPTIONS)


def test_directions_of_edits(clip):
    after = [photo(9), IMAGES[1].copy(), photo(10), photo(11)]
    captions = ["a green star", "a dog on sand", "two dogs", "a blue star"]
    scores = edit_scores(clip, IMAGES, after, CAPTIONS, captions)
    wanted = directional_scores(clip.images(IMAGES), clip.images(after), clip.texts(CAPTIONS), clip.texts(captions))
    right = scores.values["clip_directional"]
    assert right[1] == 0.0, "what was not edited moved in no direction"
    assert np.delete(right, 1) == pytest.approx(np.delete(wanted, 1), abs=1e-4)
    assert scores.facts["clip_directional"]["unchanged_images"] == 1
    assert scores.values["clip_directional_shuffled"][0] != pytest.approx(right[0], abs=1e-4)
    back = edit_scores(clip, after, IMAGES, captions, CAPTIONS).values["clip_directional"]
    assert back == pytest.approx(right, abs=1e-4)
    against = edit_scores(clip, after, IMAGES, CAPTIONS, captions).values["clip_directional"]
    assert against == pytest.approx(-np.array(right), abs=1e-4)


def test_rounding_in_an_embedding_is_no_edit(clip, monkeypatch):
    """Embeddings of one picture differ slightly between batches: with fp16 in the third digit."""
    own = clip.images

    def shaken(pictures: Iterable[np.ndarray], total: int | None = None) -> np.ndarray:
        features = own(pictures, total)
        return features + 1e-3 * np.random.default_rng(0).normal(size=features.shape)

    monkeypatch.setattr(clip, "images", shaken)
    scores = edit_scores(clip, IMAGES, [image.copy() for image in IMAGES], CAPTIONS, list("abcd"))
    assert scores.values["clip_directional"] == [0.0] * 4


def scene(colours: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """An image (48,64,3) with a disc of each colour on beige, and its labels."""
    y, x = np.mgrid[:48, :64]
    image, labels = np.full((48, 64, 3), (230, 220, 190), np.uint8), np.full((48, 64), -1)
    for i, colour in enumerate(colours):
        disc = (y - 24) ** 2 + (x - 12 - 20 * i) ** 2 < 64
        image[disc], labels[disc] = COLOURS[colour], i
    return image, labels


def test_regions_of_a_true_and_of_a_swapped_image():
    phrases = ["red star", "green dog", "blue cat"]
    true, labels = scene(["red", "green", "blue"])
    swapped, _ = scene(["green", "red", "blue"])
    known = PhraseRegions(phrases, [0, 1, 2], labels=labels)
    scores = region_scores(ColourClip(), [true, swapped], [known, known])
    assert scores.values["region_clip_accuracy"] == [[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    assert scores.values["region_clip_chance"] == [[pytest.approx(1 / 3)] * 3] * 2
    assert scores.facts["region_clip_accuracy"] == {"network": "colours", "left_out_regions": 0}
    boxes = [[4, 16, 21, 33], [24, 16, 41, 33], [44, 16, 61, 33]]
    by_box = region_scores(ColourClip(), [true, swapped], [PhraseRegions(phrases, [0, 1, 2], boxes=boxes)] * 2)
    assert by_box.values == scores.values


def test_regions_that_cannot_be_ranked_are_left_out_and_counted():
    image, labels = scene(["red", "green", "blue"])
    regions = [
        PhraseRegions(["red star", "green dog"], [0, -1, 1], labels=labels),
        PhraseRegions(["red star", "Red  star"], [0, 1, 0], labels=labels),  # the same to any reader
        PhraseRegions(["red star", "green dog", "red star"], [2, 1, 0], labels=labels),
        PhraseRegions(["red star"], [], labels=labels),
    ]
    scores = region_scores(ColourClip(), [image] * 4, regions)
    accuracy, chance = scores.values.values()
    assert accuracy[0] == [1.0, None, pytest.approx(0.5)], "blue is as near to red as to green"
    assert accuracy[1] is None and accuracy[3] is None
    assert accuracy[2] == [1.0, 1.0, pytest.approx(0.5)], "two stars of one colour share their phrase"
    assert chance == [[0.5, None, 0.5], None, [0.5, 0.5, 0.5], None]
    assert scores.facts["region_clip_accuracy"]["left_out_regions"] == 4


def test_regions_with_a_network_and_cached_embeddings(clip, tmp_path, monkeypatch):
    image, labels = scene(["red", "green", "blue"])
    known = PhraseRegions(["red star", "green dog", "blue cat"], [0, 1, 2], labels=labels)
    scores = region_scores(clip, [image, photo(3, 48, 64)], [known, known], cache_folder=tmp_path)
    assert scores == region_scores(clip, [image, photo(3, 48, 64)], [known, known])
    monkeypatch.setattr(clip, "embed", lambda batch: pytest.fail("embedded again"))
    assert scores == region_scores(clip, [image, photo(3, 48, 64)], [known, known], cache_folder=tmp_path)
    assert region_scores(clip, [], [], cache_folder=tmp_path).values["region_clip_accuracy"] == []


def test_a_crop_shows_its_region_alone():
    image, labels = scene(["red", "green"])
    labels[:, 20:24] = 1  # reaches into the first one's row
    regions = PhraseRegions(["red star", "green dog"], [0, 1], labels=labels)
    shown = crop(image, regions, 0, FILL)
    assert shown.shape[0] == shown.shape[1] and {tuple(c) for c in shown.reshape(-1, 3)} == {COLOURS["red"], FILL}
    assert (shown == COLOURS["red"]).all(-1).sum() == (labels == 0).sum(), "every pixel of it is there"


@pytest.mark.parametrize(("box", "at"), [((0, 0, 6, 2), (2, slice(None))), ((10, 3, 12, 13), (slice(None), 4))])
def test_a_long_box_is_centred_on_a_square(box, at):
    image = np.full((20, 20, 3), 255, np.uint8)
    shown = crop(image, PhraseRegions(["a"], [0], boxes=[box]), 0, FILL)
    side = max(box[2] - box[0], box[3] - box[1])
    assert shown.shape == (side, side, 3) and (shown[at] == 255).all()
    assert (shown == 255).all(-1).sum() == (box[2] - box[0]) * (box[3] - box[1])


LABELS = np.zeros((48, 64), int)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PhraseRegions(["a"], [0]), "either labels or boxes"),
        (lambda: PhraseRegions(["a"], [0], labels=LABELS, boxes=[[0, 0, 1, 1]]), "either labels or boxes"),
        (lambda: PhraseRegions(["a"], [1], labels=LABELS), "1 phrases"),
        (lambda: PhraseRegions(["a"], [0, 0], boxes=[[0, 0, 1, 1]]), "boxes have shape"),
        (lambda: PhraseRegions(["a", "b"], [0, 1], labels=LABELS), "region 1 has no pixels"),
        (lambda: PhraseRegions(["a", "b"], [0], labels=LABELS[:9]), "differ in size"),
        (lambda: PhraseRegions(["a", "b"], [0], boxes=[[0, 0, 65, 9]]), "within the image of 64x48"),
        (lambda: PhraseRegions(["a", "b"], [0], boxes=[[5, 0, 5, 9]]), "within the image"),
        (lambda: PhraseRegions(["a", "b"], [0], boxes=[[0.5, 0, 5, 9]]), "in integers"),
    ],
)
def test_regions_that_do_not_fit_are_named(make, says):
    with pytest.raises(ValueError, match=says):
        region_scores(ColourClip(), [photo(0, 48, 64)], [make()])


def test_wrong_images_and_counts_are_named(clip):
    for wrong in (IMAGES[0] / 255, IMAGES[0][..., 0], IMAGES[0].astype(np.float32)):
        with pytest.raises(UserError, match="image 1"):
            caption_scores(clip, [IMAGES[0], wrong], CAPTIONS[:2])
    with pytest.raises(ValueError, match="4 images, 3 captions"):
        caption_scores(clip, IMAGES, CAPTIONS[:3])
    with pytest.raises(ValueError, match="as many of each"):
        edit_scores(clip, IMAGES, IMAGES[:2], CAPTIONS, CAPTIONS)
    with pytest.raises(ValueError, match="1 images, 0 regions"):
        region_scores(clip, IMAGES[:1], [])
