"""Folders of a few images: no split stays empty, and what that means for figures is reported."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.sources.folder import Folder
from ragaf_exp.data.split import FEW, SPLITS, hash_share, split_lists, split_of, working_shares

SHARES = st.floats(0.02, 0.4)


def folder_of(root: Path, count: int) -> Path:
    root.mkdir(exist_ok=True)
    for i in range(count):
        picture = np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / f"{i}.png")
    rows = [json.dumps({"file_name": f"{i}.png", "text": f"picture {i}"}) + "\n" for i in range(count)]
    (root / "metadata.jsonl").write_text("".join(rows))
    return root


@given(st.lists(st.text(min_size=1), unique=True, min_size=3, max_size=FEW - 1), SHARES, SHARES)
def test_of_three_and_more_every_split_has_its_own(names: list[str], val: float, test: float) -> None:
    splits, filled = split_lists(names, val, test)
    assert all(splits.values()) and sorted(sum(splits.values(), [])) == sorted(names)
    by_hash = {split: [n for n in names if split_of(n, val, test) == split] for split in SPLITS}
    assert filled == [split for split in SPLITS if not by_hash[split]]
    changed = [name for split in SPLITS for name in splits[split] if name not in by_hash[split]]
    assert len(changed) <= 2 * len(filled), "as few as possible"
    assert split_lists(names[::-1], val, test) == (splits, filled), "the order of rows makes no difference"


@pytest.mark.parametrize("count", [FEW, 500])
def test_a_larger_folder_is_split_by_the_hash_alone(count: int) -> None:
    names = [f"{i}.jpg" for i in range(count)]
    splits, filled = split_lists(names, 0.1, 0.1)
    assert filled == [] and all(split_of(name, 0.1, 0.1) == split for split in SPLITS for name in splits[split])


def test_a_share_of_0_stays_empty() -> None:
    assert split_lists(["a", "b", "c"], 0.0, 0.1)[0]["val"] == []
    assert split_lists(["a"], 0.0, 0.0)[0] == {"train": ["a"], "val": [], "test": []}


def test_given_splits_stay_as_they_are() -> None:
    names = [f"{i}" for i in range(9)]
    given_splits = {"0": "test", "1": "test", **{name: "train" for name in names[2:]}}
    splits, _ = split_lists(names, 0.1, 0.5, given_splits)
    assert splits["test"] == ["0", "1"] and splits["val"] and len(splits["train"]) + len(splits["val"]) == 7


@pytest.mark.parametrize(
    ("count", "sizes", "says"),
    [
        (1, {"train": 1, "val": 1, "test": 1}, "val and test hold 0.png, which is trained on"),
        (2, {"train": 1, "val": 1, "test": 1}, "val and test share"),
        (5, {"train": 3, "val": 1, "test": 1}, "filled in the order of hashes"),
    ],
)
def test_few_images(
    count: int, sizes: dict[str, int], says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    with caplog.at_level(logging.WARNING):
        folder = Folder(str(folder_of(tmp_path / "photos", count)), size=16)
    assert {split: len(folder.split(split)) for split in SPLITS} == sizes
    assert len(caplog.records) == 1 and says in caplog.text


@given(st.lists(st.text(min_size=1), unique=True, min_size=FEW, max_size=40), SHARES, SHARES)
def test_the_advised_shares_work(names: list[str], val: float, test: float) -> None:
    shares = working_shares(names, val, test)
    if shares is not None:
        assert shares[0] >= val and shares[1] >= test and sum(shares) < 1
        assert all(split_lists(names, *shares)[0].values())


def test_advice_with_a_given_split_is_for_the_rest() -> None:
    names = [f"{i}.png" for i in range(40)]
    pool = [name for name in names if hash_share(name) > 0.2]
    assert not split_lists(pool, 0.1, 0.1)[0]["test"] and len(pool) >= FEW
    val, test = working_shares(pool, 0.1, 0.0)
    splits, _ = split_lists([*pool, "t.png"], val, test, {"t.png": "test"})
    assert test == 0 and splits["test"] == ["t.png"] and splits["val"] and splits["train"]


def test_the_advice_names_keys_and_values_that_work(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", 12)
    words = ["data=folder", f"data.root={root}", "data.size=32", "data.val_share=0", "data.test_share=0.01"]
    with pytest.raises(UserError, match="no items in the val split; set data.val_share=.* or give more images") as caught:
        Parts(compose_config(words), lambda item: None, *[None] * 4).check_splits()
    advised = re.search(r"set (data.val_share=\S+) (data.test_share=\S+),", str(caught.value)).groups()
    Parts(compose_config([*words, *advised]), lambda item: None, *[None] * 4).check_splits()
    with pytest.raises(UserError, match=r"no items in the val split; raise data\.val$"):
        Parts(compose_config(["data.size=32", "data.val=0"]), lambda item: None, *[None] * 4).check_splits()
