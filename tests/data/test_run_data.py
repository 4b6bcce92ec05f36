"""A run keeps a record of its folder's data: it neither goes on nor counts as finished with other data."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.sources.folder import Folder
from ragaf_exp.data.sources.openmoji import OpenMoji
from ragaf_exp.evaluation.run import evaluate_run
from ragaf_exp.experiments.experiment import run
from ragaf_exp.runs import data_record
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.encoder_cache.fill import digest_of, marker

pytestmark = pytest.mark.process

COUNT = 9


def write(root: Path, seed: int = 0, caption: str = "a picture of {}") -> Path:
    """COUNT pictures with captions and drawings, in files whose size does not depend on their content."""
    for folder in (root, root / "drawings"):
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(COUNT):
            picture = np.random.default_rng(seed + i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / f"{i}.bmp")
    rows = [json.dumps({"file_name": f"{i}.bmp", "text": caption.format(i)}) + "\n" for i in range(COUNT)]
    (root / "metadata.jsonl").write_text("".join(rows))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "photos")


def source(root: Path, check: bool = True) -> Folder:
    return Folder(str(root), size=16, drawings="drawings", check=check)


def test_the_same_data_pass_wherever_they_are(root: Path, tmp_path: Path) -> None:
    data_record.record(tmp_path, source(root))
    content = json.loads((tmp_path / "data.json").read_text())
    assert content["schema"] == 1 and set(content["files"]) >= {"0.bmp", "0.bmp (drawing)"}
    assert len(content["files"]) == 2 * COUNT and all(len(entry[2]) == 64 for entry in content["files"].values())
    copied = shutil.copytree(root, tmp_path / "elsewhere", copy_function=shutil.copy)  # with other times
    for check in (True, False):
        data_record.check(tmp_path, source(copied, check))


def test_what_changed_is_named(root: Path, tmp_path: Path) -> None:
    data_record.record(tmp_path, source(root))
    write(root, seed=100, caption="another {}")
    (root / "drawings" / "3.bmp").unlink()
    for check in (True, False):
        with pytest.raises(UserError) as caught:
            data_record.check(tmp_path, Folder(str(root), size=16, drawings="drawings", check=check, on_error="skip"))
        message = str(caught.value)
        assert "17 files changed (0.bmp, 1.bmp, 2.bmp, and 14 more)" in message and "\n" not in message
        assert "1 file missing (3.bmp (drawing))" in message and "captions or their order changed" in message
        assert "name=" in message and message.startswith(str(tmp_path))


@pytest.mark.parametrize("check", [True, False])
def test_one_pixel_is_enough(root: Path, tmp_path: Path, check: bool) -> None:
    data_record.record(tmp_path, source(root))
    content = bytearray((root / "5.bmp").read_bytes())
    content[-1] ^= 1
    (root / "5.bmp").write_bytes(content)
    with pytest.raises(UserError, match=r": 1 file changed \(5\.bmp\); restore it"):
        data_record.check(tmp_path, source(root, check))


def test_a_caption_or_a_row_is_enough(root: Path, tmp_path: Path) -> None:
    data_record.record(tmp_path, source(root))
    lines = (root / "metadata.jsonl").read_text().splitlines()
    for changed in (lines[::-1], [lines[0].replace("picture", "photo"), *lines[1:]]):
        (root / "metadata.jsonl").write_text("\n".join(changed))
        with pytest.raises(UserError, match="captions or their order changed"):
            data_record.check(tmp_path, source(root))
    (root / "metadata.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match=r"2 files missing \(0\.bmp, 0\.bmp \(drawing\)\)"):
        data_record.check(tmp_path, source(root))


def test_checksums_are_of_what_was_read(root: Path, tmp_path: Path) -> None:
    unread = source(root, check=False)
    data_record.record(tmp_path, unread)
    sums = [entry[2] for entry in json.loads((tmp_path / "data.json").read_text())["files"].values()]
    assert not any(sums)
    unread.split("train")[0]
    data_record.record(tmp_path, unread)
    sums = [entry[2] for entry in json.loads((tmp_path / "data.json").read_text())["files"].values()]
    assert sum(map(bool, sums)) == 2, "an image and its drawing"
    data_record.record(tmp_path, source(root, check=False))
    assert sums == [entry[2] for entry in json.loads((tmp_path / "data.json").read_text())["files"].values()]


def test_unmodified_files_are_not_read_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_record.record(tmp_path, source(root))
    read: list[Path] = []
    monkeypatch.setattr("ragaf_exp.data.manifest.checksum", lambda path: read.append(path) or "")
    data_record.check(tmp_path, source(root, check=False))
    assert read == []
    os.utime(root / "1.bmp")
    with pytest.raises(UserError, match=r"1 file changed \(1\.bmp\)"):
        data_record.check(tmp_path, source(root, check=False))
    assert read == [root / "1.bmp"]


@pytest.mark.parametrize("content", ['{"schema": 1}', '{"schema": 1, "rows": "", "files": {"0.bmp": 5}}', "{"])
def test_a_damaged_record_is_named(root: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(UserError, match=r"data\.json: damaged"):
        data_record.check(tmp_path, source(root))


def test_other_sources_and_older_runs_have_no_record(root: Path, tmp_path: Path) -> None:
    data_record.record(tmp_path, object())
    data_record.check(tmp_path, source(root))
    assert list(tmp_path.glob("data.json")) == []


def test_openmoji_has_a_record_too(tmp_path: Path) -> None:
    for folder in ("black", "color"):
        (tmp_path / folder).mkdir()
        for code in ("1F34E", "1F34F"):
            Image.fromarray(np.full((32, 32, 4), 255, np.uint8)).save(tmp_path / folder / f"{code}.png")
    entries = [{"hexcode": code, "annotation": code, "group": "food-drink"} for code in ("1F34E", "1F34F")]
    (tmp_path / "openmoji.json").write_text(json.dumps(entries))
    moji = OpenMoji(str(tmp_path), size=32, val_share=0.0, test_share=0.0)
    moji.split("train")[0], moji.split("train")[1]
    data_record.record(tmp_path, moji)
    data_record.check(tmp_path, OpenMoji(str(tmp_path), size=32))
    Image.fromarray(np.full((32, 32, 4), 254, np.uint8)).save(tmp_path / "color" / "1F34E.png")
    with pytest.raises(UserError, match=r"1 file changed \(color/1F34E\.png\)"):
        data_record.check(tmp_path, OpenMoji(str(tmp_path), size=32))


def test_features_of_other_data_are_not_taken_for_complete(root: Path, tmp_path: Path) -> None:
    cfg = compose_config(["data=folder", f"data.root={root}"])
    before = marker(cfg, tmp_path, COUNT, digest_of(source(root)))
    assert before == marker(cfg, tmp_path, COUNT, digest_of(source(root)))
    write(root, seed=100)
    assert before != marker(cfg, tmp_path, COUNT, digest_of(source(root)))
    assert digest_of(object()) == "", "its config says all"


def test_a_run_and_its_data(root: Path, tmp_path: Path, tiny: list[str], caplog: pytest.LogCaptureFixture) -> None:
    words = [word for word in tiny if not word.startswith(("data.train", "data.val", "data.test"))]
    cfg = compose_config(
        [*words, f"runs={tmp_path / 'runs'}", "data=folder", f"data.root={root}", "data.drawings=drawings"]
    )
    folder = run(cfg)
    assert folder.done() and (folder.path / "data.json").is_file()
    copy = shutil.copytree(root, tmp_path / "copy")
    write(root, seed=100, caption="another {}")
    for attempt in ("finished", "interrupted"):
        with pytest.raises(UserError, match=f"{folder.path}: .*files changed.*captions or their order changed"):
            run(cfg)
        status = json.loads((folder.path / "status.json").read_text())
        assert attempt == "interrupted" or status["state"] == "done", "a finished run stays one"
        (folder.path / "status.json").write_text(json.dumps({**status, "state": "running"}))
    with pytest.raises(UserError, match="files changed"):
        evaluate_run(*RunFolder.read(folder.path))
    shutil.rmtree(root)
    copy.rename(root)
    assert run(cfg).done(), "with its own data it goes on"
    shutil.rmtree(root)
    with caplog.at_level(logging.INFO):
        assert run(cfg).done()
    assert "can't be compared" in caplog.text and "already finished" in caplog.text
