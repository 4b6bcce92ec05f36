"""Label masks: the index of an indexed PNG, the level of a grey one of any depth, never a colour."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval.__main__ as command
from eval.images import ImageSet
from eval.sidecars import Caption, scenes_of
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.decode import read_labels

LABELS = np.repeat(np.array([[0], [1], [1], [2]], np.uint8), 4, 1)  # (4,4)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0]  # the palette that segmentation tools write


def indexed(labels: np.ndarray, palette: list[int]) -> Image.Image:
    picture = Image.fromarray(labels, "P")
    picture.putpalette(palette + [0] * (768 - len(palette)))
    return picture


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("voc.png", indexed(LABELS, VOC)),
        ("red_is_a_label.png", indexed(LABELS, [0, 0, 0, 0, 0, 128, 1, 128, 0])),
        ("indexed.gif", indexed(LABELS, VOC)),
        ("indexed.tif", indexed(LABELS, VOC)),
        ("grey.png", Image.fromarray(LABELS)),
        ("sixteen.png", Image.fromarray(LABELS.astype(np.uint16))),
        ("rgb.png", Image.fromarray(np.repeat(LABELS[..., None], 3, 2))),
        ("rgba.png", Image.fromarray(np.dstack([LABELS] * 3 + [np.full_like(LABELS, 255)]))),
        ("grey_alpha.png", Image.fromarray(np.dstack([LABELS, np.full_like(LABELS, 255)]), "LA")),
    ],
)
def test_labels_are_read_as_stored(name: str, picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / name)
    np.testing.assert_array_equal(read_labels(tmp_path / name), LABELS)


def test_a_transparent_palette_entry_changes_no_index(tmp_path: Path) -> None:
    indexed(LABELS, VOC).save(tmp_path / "m.png", transparency=1)
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), LABELS)


@pytest.mark.parametrize("labels", [LABELS == 1, (LABELS == 1).astype(np.uint16)])
def test_a_mask_of_one_object_holds_ones(labels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(labels).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), labels.astype(int))


def test_colours_are_refused(tmp_path: Path) -> None:
    indexed(LABELS, VOC).convert("RGB").save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"m\.png: is a colour picture.*greyscale or indexed"):
        read_labels(tmp_path / "m.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "m.png").read_bytes()[:900])
    with pytest.raises(UserError, match=r"cut\.png: is damaged"):
        read_labels(tmp_path / "cut.png")


def test_objects_are_those_of_the_indices(tmp_path: Path) -> None:
    indexed(LABELS, [0, 0, 0, 0, 0, 128, 1, 128, 0]).save(tmp_path / "a.png")
    caption = Caption("a red dog and a blue cat", ("a red dog", "a blue cat"))
    images = ImageSet.arrays([np.zeros((4, 4, 3), np.uint8)], ["a"])
    scene = scenes_of(images, {"a": tmp_path / "a.png"}, {"a": caption})[0]
    sizes = {thing.shape: int((scene.object_map == thing.label).sum()) for thing in scene.objects}
    assert sizes == {"dog": 8, "cat": 4}


def test_masks_without_a_phrases_value_are_reported(tmp_path: Path, cli) -> None:
    rng = np.random.default_rng(0)
    masks = {"a": np.ones((16, 16), np.uint8), "b": np.zeros((16, 16), np.uint8)}
    for name, mask in masks.items():
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
        indexed(mask, VOC).save(tmp_path / "masks" / f"{name}.png")
    rows = [{"file_name": f"{name}.png", "text": "a red dog", "phrases": ["a red dog"]} for name in masks]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"{key}={tmp_path / key}" for key in ("images", "masks")] + [f"captions={tmp_path / 'captions.jsonl'}"]
    status, out, err = cli(command.main, *words, f"out={tmp_path / 'out.json'}", "eval.metrics=[]")
    assert status == 0, err
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["items"]["masks"] == {"used": 2, "images_without": 0, "without_phrases": 1}
    assert content["metrics"]["binding_accuracy"]["n"] == 1
    warned = [text for text in content["warnings"] if text.startswith("masks: 1 of 2 hold no phrase's value, such as b")]
    assert len(warned) == 1 and warned[0] in out
