"""One rule for every folder: hidden names are passed over, damaged files are counted and named."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval.__main__ as command
from eval.images import ImageSet
from ragaf_exp.commands import region_survey
from ragaf_exp.data.listing import listed, visible
from ragaf_exp.data.sources.emoji import read_catalogue
from ragaf_exp.report.compare.runs import sweep_members
from ragaf_exp.sweep.ledger import Record

HIDDEN = (".ipynb_checkpoints/a-checkpoint.png", "._a.png", "sub/._b.png", "sub/.trash/c.png")


def save(path: Path, seed: int = 0, side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.png and sub/b.png, with what Jupyter and macOS leave among them, and one other file."""
    root = tmp_path / "pictures"
    for i, name in enumerate(("a.png", "sub/b.png", *HIDDEN)):
        save(root / name, i)
    (root / "._a.png").write_bytes(b"\0\5\x16\7Mac OS X")
    (root / "notes.txt").write_text("")
    return root


def test_the_listing(folder: Path) -> None:
    assert listed(folder) == ([Path("a.png"), Path("sub/b.png")], [Path("notes.txt")])
    assert [path.name for path in visible(folder.iterdir())] == ["a.png", "notes.txt", "sub"]


def test_every_reader_follows_it(folder: Path) -> None:
    assert ImageSet.folder(folder).keys == ("a", "sub/b")
    assert len(region_survey.survey_folder(folder, 64, [])[0].counts) == 2


def test_openmoji_passes_over_hidden_files(tmp_path: Path) -> None:
    for name in ("black", "color"):
        save(tmp_path / name / "1F34E.png")
        save(tmp_path / name / "._1F34F.png")
    rows = [{"hexcode": code, "annotation": "x", "group": "food-drink"} for code in ("1F34E", "._1F34F", "1F34F")]
    (tmp_path / "openmoji.json").write_text(json.dumps(rows))
    assert [emoji.code for emoji in read_catalogue(str(tmp_path))] == ["1F34E"]


def test_runs_and_jobs_pass_over_hidden_files(tmp_path: Path) -> None:
    for name in ("a/0123456789ab", ".trash/0123456789ab"):
        (tmp_path / name).mkdir(parents=True)
    assert [path.parent.name for path in sweep_members(tmp_path)] == ["a"]
    record = Record(tmp_path / "a")
    record.jobs_folder.mkdir(parents=True)
    (record.jobs_folder / "._1.json").write_bytes(b"\0\5\x16\7")
    assert record.jobs() == []


def test_survey_counts_and_names_damaged_files(folder: Path, cli, caplog: pytest.LogCaptureFixture) -> None:
    save(folder / "c.png", 9)
    cut(folder / "c.png")
    with caplog.at_level(logging.WARNING):
        status, out, _ = cli(region_survey.main, f"drawings=[{folder}]", "size=64")
    assert status == 0 and out.splitlines()[0].split()[-1] == "damaged"
    assert out.splitlines()[1].split()[1] == "2" and out.splitlines()[1].split()[-1] == "1"
    assert "1 of 3 files are damaged" in caplog.text and "c.png: is damaged or cut short" in caplog.text


def test_survey_of_damaged_files_alone_is_refused(tmp_path: Path, cli) -> None:
    for name in "abcde":
        (tmp_path / f"{name}.png").write_bytes(b"text")
    status, _, err = cli(region_survey.main, f"drawings=[{tmp_path}]")
    last = err.splitlines()[-1]
    assert status == 2 and all(part in last for part in ("5 of 5 files are damaged", "a.png", "and 2 more"))


def test_eval_counts_and_names_damaged_files_of_every_folder(folder: Path, tmp_path: Path, cli) -> None:
    reference, sketches, training = (tmp_path / name for name in ("reference", "sketches", "training"))
    for root in (reference, sketches, training):
        for i, name in enumerate(("a.png", "sub/b.png")):
            save(root / name, i + 10)
        cut(root / "sub/b.png")
    save(reference / "sub/b.png", 20)
    captions = tmp_path / "captions.csv"
    captions.write_text("file_name,text\na.png,a red circle, left of a square\nsub/b.png,a dog\n")
    words = [f"images={folder}", f"reference={reference}", f"sketches={sketches}", f"training={training}",
             f"captions={captions}", f"out={tmp_path / 'out.json'}", "eval.metrics=[]"]  # fmt: skip
    status, _, err = cli(command.main, *words)
    assert status == 2 and "captions.csv: row 1: it has 3 values for 2 columns" in err.splitlines()[-1]
    captions.write_text("file_name,text\na.png,a cat\nsub/b.png,a dog\n")
    status, _, err = cli(command.main, *words)
    assert status == 2 and "b.png: is damaged" in err.splitlines()[-1]
    captions.write_text("file_name,text\na.png,a red circle, left of a square\nsub/b.png,a dog\n")
    status, _, err = cli(command.main, *words, "on_error=skip")
    assert status == 0, err
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["items"]["damaged"] == {"captions": 1, "sketches": 1, "training": 1}
    assert content["items"]["captions"] == {"used": 1, "images_without": 1}
    assert any(text.startswith("captions: 1 rows are left out: row 1: it has 3") for text in content["warnings"])
    assert content["items"]["sketches"] == {"used": 1, "images_without": 1}
    for name in ("sketches", "training"):
        assert any(text.startswith(f"{name}: 1 damaged files are left out") for text in content["warnings"])
