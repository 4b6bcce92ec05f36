"""OpenMoji: alone and composed; true masks, spans and colours; splits by emoji; folders of another layout."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Item
from ragaf_exp.data.sources.compose import place_boxes
from ragaf_exp.data.sources.emoji import noun, read_art, recolour
from ragaf_exp.data.sources.openmoji import OpenMoji, shows
from ragaf_exp.data.sources.palette import BACKGROUND_NAMES, OBJECT_COLOURS, OBJECT_NAMES, nearest_colour
from ragaf_exp.data.split import SPLITS, split_of


def write_emoji(root: Path, count: int = 60) -> None:
    """A folder in OpenMoji's layout with filled and line-only drawings."""
    for folder in ("black", "color"):
        (root / folder).mkdir(parents=True)
    rows = []
    for i in range(count):
        code = f"1F{i:03X}"
        fill = tuple(OBJECT_COLOURS.values())[i % 8] if i % 5 else (235, 235, 235)
        box = (8, 10 + i % 7, 60, 60)
        for folder, inside in (("black", None), ("color", fill if i % 10 != 9 else None)):
            picture = Image.new("RGBA", (72, 72))
            shape = ImageDraw.Draw(picture)
            (shape.ellipse if i % 2 else shape.rectangle)(box, fill=inside, outline=(0, 0, 0), width=2)
            picture.save(root / folder / f"{code}.png")
        rows.append({"hexcode": code, "annotation": f"red thing {i}", "group": "objects", "subgroups": "tool"})
    rows.append({"hexcode": "1F000-1F3FB", "annotation": "hand", "group": "objects", "subgroups": "x"})
    rows.append({"hexcode": "1FFFF", "annotation": "no files", "group": "objects", "subgroups": "x"})
    (root / "openmoji.json").write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("openmoji") / "emoji"
    write_emoji(root)
    return str(root)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> str:
    return str(shared_data / "openmoji72")


def check_items(items: list[Item], recoloured: bool, size: int = 64) -> None:
    for item in items:
        assert item.image.shape == (size, size, 3) and item.image.dtype == np.uint8
        assert item.drawing.shape == (size, size) and item.drawing.dtype == np.float32
        assert item.drawing.min() >= 0 and 0.5 < item.drawing.max() <= 1
        assert any(item.caption.endswith(f"{name} background") for name in BACKGROUND_NAMES)
        assert set(np.unique(item.object_map)) == {0, *(thing.label for thing in item.objects)}
        for thing in item.objects:
            phrase = item.caption[slice(*thing.span)]
            assert phrase.endswith(f"{thing.colour} {thing.shape}".strip())
            assert thing.colour in OBJECT_NAMES if recoloured else thing.colour == ""
            assert not recoloured or shows(item, thing)


def test_alone_and_scenes_of_a_made_folder(made: str) -> None:
    alone = OpenMoji(made, train=70)
    assert sum(len(part) for part in alone.emoji.values()) == 60
    check_items(list(alone.split("train")), recoloured=False)
    assert len(alone.split("train")) == 70 and len(alone.split("test")) == len(alone.emoji["test"])
    item = alone.split("train")[0]
    assert item.caption.startswith("red thing") and len(item.objects) == 1
    for options in ({"recolour": True}, {"scenes": True}, {"scenes": True, "recolour": True}):
        source = OpenMoji(made, train=40, **options)
        assert sum(len(part) for part in source.emoji.values()) == 54  # line-only ones can't show a colour
        check_items(list(source.split("train")), "recolour" in options)


def test_items_are_pure_and_splits_apart(made: str) -> None:
    sources = [OpenMoji(made, scenes=True, recolour=True, max_objects=2, val_share=0.2, test_share=0.2) for _ in "ab"]
    for name in SPLITS:
        first, second = sources[0].split(name), pickle.loads(pickle.dumps(sources[1].split(name)))
        for index in (5, 3):
            assert np.array_equal(first[index].image, second[index].image)
            assert first[index].caption == second[index].caption and first[index].key == second[index].key
        codes = {emoji.code for emoji in sources[0].emoji[name]}
        assert codes and {split_of(code, 0.2, 0.2) for code in codes} == {name}
    things = {name: {t.shape for i in range(30) for t in sources[0].split(name)[i].objects} for name in SPLITS}
    assert not things["train"] & things["test"] and not things["train"] & things["val"]


def test_captions_go_from_left_to_right(made: str) -> None:
    for item in OpenMoji(made, scenes=True, min_objects=2, train=40).split("train"):
        centres = [np.argwhere(item.object_map == t.label)[:, 1].mean() for t in item.objects]
        assert (np.diff(centres) > 2).all()
        assert " and a red thing" in item.caption and item.caption.count("a red thing") == len(item.objects)


def test_boxes_keep_apart() -> None:
    for seed in range(30):
        boxes = place_boxes(np.random.default_rng(seed), np.array([[60, 60], [30, 70], [70, 20], [50, 50]]), 64)
        board = np.zeros((64, 64), int)
        for top, left, height, width in boxes:
            board[top - 1 : top + height + 1, left - 1 : left + width + 1] += 1
        assert board.max() == 1 and (boxes[:, :2] >= 1).all() and (boxes[:, :2] + boxes[:, 2:] <= 63).all()


def test_a_split_too_small_for_its_scenes_is_named(made: str) -> None:
    with pytest.raises(UserError, match=r"usable emoji in val; use more data.groups"):
        OpenMoji(made, scenes=True, val_share=0.0).split("val")
    assert len(OpenMoji(made, val_share=0.0).split("val")) == 0


def test_folders_of_another_layout_are_named(made: str, tmp_path: Path) -> None:
    layout = r"black/HEX.png, color/HEX.png and openmoji.json"
    for root, what in (
        ("", f"data.root: no folder.*{layout}"),
        (str(tmp_path), f"no openmoji.json.*{layout}"),
    ):
        with pytest.raises(UserError, match=what):
            OpenMoji(root)
    (tmp_path / "openmoji.json").write_text('[{"hexcode": "A", "annotation": "a", "group": "objects"}]')
    with pytest.raises(UserError, match=f"no emoji of the groups.*{layout}"):
        OpenMoji(str(tmp_path))
    for text in ("{", '{"a": 1}', "[1]", '[{"hexcode": "A"}]'):
        (tmp_path / "openmoji.json").write_text(text)
        with pytest.raises(UserError, match="is not OpenMoji's list"):
            OpenMoji(str(tmp_path))
    with pytest.raises(UserError, match="data.groups: plants is not in .*; known: objects"):
        OpenMoji(made, groups=["plants"])


def test_a_bad_emoji_file_is_named(tmp_path: Path) -> None:
    write_emoji(tmp_path, 3)
    (tmp_path / "color" / "1F001.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"color/1F001.png: is empty"):
        OpenMoji(str(tmp_path), scenes=True)
    Image.new("RGBA", (36, 36)).save(tmp_path / "color" / "1F001.png")
    with pytest.raises(UserError, match=r"black/1F001.png: differs in size"):
        OpenMoji(str(tmp_path), scenes=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("size", 66), ("seed", -1), ("val", -1), ("min_objects", 0), ("max_objects", 5), ("test_share", 1.0)],
)
def test_values_out_of_range_are_named(made: str, key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"^data.{key}={value}: "):
        OpenMoji(made, **{key: value})


def test_nouns_lose_their_colour() -> None:
    assert [noun(w) for w in ("red apple", "green book", "orange", "light bulb")] == [
        "apple",
        "book",
        "orange",
        "light bulb",
    ]


@pytest.mark.parametrize("size", [32, 128])
def test_real_scenes_show_their_colours(real: str, size: int) -> None:
    check_items(list(OpenMoji(real, size=size, scenes=True, recolour=True, train=60).split("train")), True, size)


def test_real_emoji_alone(real: str) -> None:
    source = OpenMoji(real, train=1)
    for name in SPLITS:
        check_items(list(source.split(name))[:40], recoloured=False)
    assert len(source.split("test")) == len(source.emoji["test"]) > 60
    groups = OpenMoji(real, groups=["smileys-emotion"])
    assert {emoji.name for emoji in groups.emoji["train"]} & {"grinning face", "winking face", "robot"}


def test_recolouring_keeps_outlines_and_shading(real: str) -> None:
    source = OpenMoji(real, recolour=True)
    for emoji in source.emoji["test"][:25]:
        art = read_art(real, emoji.code)
        for colour in OBJECT_NAMES:
            new = recolour(art, colour)
            assert nearest_colour(new.rgb[new.interior].mean(0) / 255) == colour
            line = (art.line > 0.95) & (art.cover > 0.95)
            assert not line.any() or new.rgb[line].mean() < 20


def test_two_hundred_real_scenes_a_second(real: str) -> None:
    split = OpenMoji(real, scenes=True, recolour=True).split("train")
    start = time.process_time()
    for index in range(100):
        split[index]
    assert 100 / (time.process_time() - start) > 100  # measured 350
