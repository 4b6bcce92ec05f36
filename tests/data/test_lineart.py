"""data=lineart: any folder of drawings becomes items whose captions, masks and colours agree."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.scoring import bindings
from ragaf_exp.assembly.assemble import preparer
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.images import read_drawing
from ragaf_exp.data.loader import region_objects
from ragaf_exp.data.sources import lineart
from ragaf_exp.data.sources.flatting import place_name
from ragaf_exp.data.sources.lineart import LineArt


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twenty drawings of two figures each, in subfolders, light on dark in one of them, and one without any area."""
    root = tmp_path_factory.mktemp("drawings")
    rng = np.random.default_rng(0)
    for i in range(20):
        page = np.full((90, 120), 255, np.uint8)
        cv2.circle(page, (30 + i % 5, 40), int(rng.integers(14, 24)), 0, 2)
        cv2.rectangle(page, (70, 20), (105, 40 + 2 * i), 0, 2)
        (root / str(i % 2)).mkdir(exist_ok=True)
        cv2.imwrite(str(root / str(i % 2) / f"{i}.png"), page)
    cv2.imwrite(str(root / "open.png"), cv2.line(np.full((90, 120), 255, np.uint8), (5, 5), (100, 80), 0, 2))
    return root


def test_every_area_has_the_colour_and_the_place_of_its_phrase(folder):
    source = LineArt(str(folder), train=60)
    fills = set()
    for item in source.split("train"):
        assert 1 <= len(item.objects) <= 2
        for thing, binding in zip(item.objects, bindings(item.image, item), strict=True):
            phrase = item.caption[slice(*thing.span)]
            assert binding.correct and thing.colour in phrase and thing.shape in phrase and phrase.startswith(("a ", "an "))
            assert place_name(item.object_map == thing.label) == thing.shape
            fills.add(phrase.split()[1])
    assert {"striped", "dotted", "shaded"} < fills


def test_strokes_stay_and_regions_belong_to_areas(folder):
    prepare = preparer(compose_config(["data=scenes"]))
    for item in (LineArt(str(folder)).split("val")[i] for i in range(8)):
        assert (item.image[item.drawing > 0.9] < 60).all()
        owners = region_objects(prepare(item))
        assert set(range(len(item.objects))) <= set(owners.tolist())


def test_items_are_a_function_of_seed_split_and_index(folder):
    first, again, other = (LineArt(str(folder), seed=seed).split("train")[5] for seed in (0, 0, 1))
    assert np.array_equal(first.image, again.image) and first.caption == again.caption and first.key == again.key
    assert first.key != other.key and not np.array_equal(first.image, other.image)


def test_captions_colour_no_drawing_and_read_each_once(folder, monkeypatch):
    wanted = [item.caption for item in LineArt(str(folder), train=60).split("train")]
    reads = []
    monkeypatch.setattr(lineart, "colour_areas", lambda *args: pytest.fail("coloured"))
    monkeypatch.setattr(lineart, "read_drawing", lambda *args: reads.append(args) or read_drawing(*args))
    source = LineArt(str(folder), train=60, cache_mb=0)
    assert source.split("train").captions(60) == wanted and len(reads) == len(source.names["train"])


def test_a_drawing_is_in_one_split_only_and_comes_again_in_other_colours(folder):
    source = LineArt(str(folder), train=100, test=30)
    drawings = {split: {item.drawing.tobytes() for item in source.split(split)} for split in ("train", "val", "test")}
    assert not drawings["train"] & drawings["test"] and not drawings["train"] & drawings["val"]
    assert 1 <= len(drawings["test"]) < 30
    assert len({item.caption for item in source.split("test")}) > 10


def test_the_manifest_notices_another_file(folder, tmp_path):
    before = LineArt(str(folder)).manifest().digest()
    assert before == LineArt(str(folder)).manifest().digest()
    page = tmp_path / "more.png"
    cv2.imwrite(str(page), np.zeros((9, 9), np.uint8))
    assert LineArt(str(tmp_path)).manifest().digest() != before


@pytest.mark.parametrize("polarity", ["dark", "auto"])
def test_a_folder_without_areas_is_refused_when_read(polarity, tmp_path):
    cv2.imwrite(str(tmp_path / "open.png"), cv2.line(np.full((60, 60), 255, np.uint8), (5, 5), (50, 40), 0, 2))
    with pytest.raises(UserError, match="no drawing of the train split encloses an area"):
        LineArt(str(tmp_path), polarity=polarity).split("train")[0]


@pytest.mark.parametrize("root, says", [("", "no such folder"), ("missing", "no such folder"), (".", "no pictures")])
def test_a_wrong_folder_is_one_line(root, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"data.root={root or ''}: .*{says}"):
        LineArt(root)


def test_openmoji_line_art_in_the_layout_that_it_ships_in(shared_data):
    items = LineArt(str(shared_data / "openmoji72" / "black")).split("test")
    correct = [b.correct for item in (items[i] for i in range(40)) for b in bindings(item.image, item)]
    assert len(correct) >= 40 and np.mean(correct) >= 0.97
