"""items.jsonl: what is written comes back, figures are the means over it, and damage is named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from eval.items import ItemRow, add_values, figure_of, item_row, read_items, row_of, write_items
from eval.statistics.bootstrap import figure
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Example, Graph, Item, Regions, SceneObject

IMAGE = np.zeros((8, 8, 3), np.uint8)


def table() -> list[ItemRow]:
    rows = [ItemRow("a", areas=[0.1, 0.2]), ItemRow("b", areas=[0.3]), ItemRow("c")]
    add_values(rows, "ssim", np.array([0.1, 0.2, 0.4]))
    add_values(rows, "binding_accuracy", [[True, False], [True], None])
    add_values(rows, "binding_accuracy_heldout", [[None, 0.0], [None], None])
    return rows


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "items.jsonl"
    write_items(path, table())
    assert read_items(path) == table()
    lines = path.read_text().splitlines()
    assert len(lines) == 3 and json.loads(lines[0])["values"]["binding_accuracy"] == [1.0, 0.0]


def test_a_figure_is_the_mean_over_all_values():
    rows = table()
    assert figure_of(rows, "ssim", higher_is_better=True, weights="ema") == figure(
        [0.1, 0.2, 0.4], higher_is_better=True, weights="ema"
    )
    assert figure_of(rows, "binding_accuracy", higher_is_better=True) == figure(
        [1.0, 0.0, 1.0], clusters=["a", "a", "b"], higher_is_better=True
    )
    entry = figure_of(rows, "binding_accuracy_heldout", higher_is_better=True)
    assert (entry["n"], entry["items"], entry["value"]) == (1, 1, 0.0)


def test_the_facts_of_an_example():
    drawing = np.zeros((8, 8), np.float32)
    drawing[0, :4] = 1
    drawing[1, 0] = 0.4  # too faint for a stroke
    object_map = np.zeros((8, 8), np.uint8)
    object_map[:2], object_map[4:] = 2, 1
    objects = tuple(SceneObject(label, "star", "red", "plain", (0, 1)) for label in (1, 2))
    item = Item("k", IMAGE, "a caption", drawing, objects, object_map)
    regions = Regions(np.zeros((8, 8), np.int16), 3, 0, np.zeros(3, np.int16), np.zeros(3, np.int16))
    graph = Graph(np.zeros((3, 1)), np.zeros((3, 3, 1)), np.zeros((3, 3), bool))
    row = row_of(Example(item, drawing, regions, graph))
    assert (row.key, row.stroke_density, row.regions, row.areas) == ("k", 4 / 64, 3, [0.5, 0.25])


def test_checksums_distinguish_items():
    sketch = np.zeros((8, 8))
    row = item_row("k", IMAGE, "red", sketch)
    assert row == item_row("k", IMAGE.copy(), "red", sketch.copy())
    assert row.image != item_row("k", IMAGE, "blue", sketch).image
    assert row.image != item_row("k", IMAGE + 1, "red", sketch).image
    assert row.image != item_row("k", IMAGE.reshape(4, 16, 3), "red", sketch).image
    other = item_row("k", IMAGE, "red", sketch + 1)
    assert row.sketch != other.sketch and row.image == other.image
    bare = item_row("k", IMAGE)
    assert (bare.sketch, bare.stroke_density, bare.regions, bare.areas) == ("", None, None, [])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0.1], "1 items for 3"),
        ([0.1, float("nan"), 0.2], "of b is not finite"),
        ([[0.1, 0.2], [float("inf")], 1.0], "of b is not finite"),
    ],
)
def test_wrong_values_are_refused(values, says):
    with pytest.raises(ValueError, match=says):
        add_values(table(), "new", values)


def test_a_key_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a occurs twice"):
        write_items(tmp_path / "items.jsonl", [ItemRow("a"), ItemRow("b"), ItemRow("a")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        ("3", "line 2"),
        ("", "line 2"),
        ('{"schema": 1}', "line 2"),
        ('{"schema": 1, "key": 7}', "line 2"),
        ('{"schema": 1, "key": "z", "new": 1}', "line 2"),
        ('{"schema": "1", "key": "z"}', "line 2"),
        ('{"schema": 2, "key": "z"}', "newer"),
        ('{"schema": 1, "key": "z", "values": {"ssim": "high"}}', "line 2"),
        ('{"schema": 1, "key": "z", "values": {"ssim": NaN}}', "line 2"),
        ('{"schema": 1, "key": "z", "values": {"ssim": true}}', "line 2"),
        ('{"schema": 1, "key": "z", "values": [1]}', "line 2"),
        ('{"schema": 1, "key": "z", "areas": 1}', "line 2"),
        ('{"schema": 1, "key": "z", "regions": "many"}', "line 2"),
        ('{"schema": 1, "key": "a"}', "a occurs twice"),
    ],
)
def test_damage_is_named(line, says, tmp_path, caplog):
    """An unreadable line is skipped with a warning; where nothing else is there, or the schema is newer, it is refused."""
    path = tmp_path / "items.jsonl"
    path.write_text(f'{{"schema": 1, "key": "a"}}\n{line}\n')
    if says.startswith("line"):
        assert [row.key for row in read_items(path)] == ["a"]
        assert str(path) in caplog.text and says in caplog.text and len(caplog.records) == 1
        path.write_text(f"{line}\n")
        says = "line 1"
    with pytest.raises(UserError, match=says) as error:
        read_items(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="missing"):
        read_items(tmp_path / "items.jsonl")
    (tmp_path / "items.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no text"):
        read_items(tmp_path / "items.jsonl")
