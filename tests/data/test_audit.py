"""The audit: every kind of defect is counted, the page shows it, and the exit status says whether there is an error."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ragaf_exp.audit import main
from ragaf_exp.data.audit.duplicates import exact, near
from ragaf_exp.data.audit.files import hash_of, inspect, is_flat

TX = "tx_000000000000"


def noise(seed: int, side: int = 96) -> np.ndarray:
    """A picture that resembles no other seed's."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (side // 8, side // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def write_sketchy(root: Path, photos: int = 24) -> None:
    for part in ("photo", "sketch"):
        (root / part / TX / "dog").mkdir(parents=True)
    for i in range(photos):
        Image.fromarray(noise(i)).save(root / "photo" / TX / "dog" / f"n1_{i}.jpg", quality=95)
        sketch = np.full((96, 96), 255, np.uint8)
        sketch[20:70, 20 + i] = 0
        Image.fromarray(sketch).save(root / "sketch" / TX / "dog" / f"n1_{i}-1.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_sketchy(tmp_path / "sketchy")
    return tmp_path / "sketchy"


def audited(cli, root: Path, *more: str) -> tuple[int, dict[str, tuple[str, int]], str]:
    """Exit status, check -> (level, count), and the page.

    Args:
        cli: Runs a command line.
        root: The data set.
        *more: Further arguments.
    """
    out = root.parent / "page" / "audit.html"
    name = [] if any(text.startswith("data=") for text in more) else ["data=sketchy"]
    status, printed, err = cli(main, *name, f"data.root={root}", "data.size=64", f"out={out}", *more)
    assert "Traceback" not in err
    lines = re.findall(r"^(error|warning|note)\s+(\d+)  ([^:]+(?:: \w+)?):", printed, re.MULTILINE)
    return status, {check: (level, int(count)) for level, count, check in lines}, out.read_text()


def test_a_clean_folder(cli, root: Path):
    status, findings, page = audited(cli, root)
    assert status == 0 and not findings
    assert "24 RGB, 24 L" in page and "96 x 96 (median)" in page and "No findings." in page


def test_defects_are_errors_and_end_with_1(cli, root: Path):
    photos = root / "photo" / TX / "dog"
    (photos / "n1_3.jpg").unlink()
    (photos / "n1_4.jpg").write_bytes((photos / "n1_4.jpg").read_bytes()[:300])
    status, findings, page = audited(cli, root)
    assert status == 1 and findings == {"missing partners": ("error", 1), "unreadable files": ("error", 1)}
    assert "dog/n1_3-1: it has no photo" in page and "n1_4.jpg: is damaged" in page


def test_duplicates_within_and_across_splits(cli, root: Path):
    from ragaf_exp.data.sources.sketchy import Sketchy

    source = Sketchy(str(root), size=64)
    train = [record.image for record in source.records_of("train")]
    test = [record.image for record in source.records_of("test")]
    (root / train[1]).write_bytes((root / train[0]).read_bytes())
    (root / test[0]).write_bytes((root / train[2]).read_bytes())
    picture = Image.open(root / train[3])
    picture.resize((90, 90)).save(root / train[4], quality=80)
    status, findings, page = audited(cli, root)
    assert status == 1
    assert findings == {"exact duplicates across splits": ("error", 1), "exact duplicates": ("note", 1),
                        "near duplicates": ("note", 1)}  # fmt: skip
    assert page.count("data:image/jpeg;base64,") == 6 and "http" not in page.replace("http-equiv", "")


def test_flags_difficulty_and_small_images(cli, root: Path):
    (root / "info").mkdir()
    (root / "info" / "invalid-error.txt").write_text("n1_0-1\n")
    header = "ImageNetID,SketchID,Difficulty,Error?\n"
    (root / "info" / "stats.csv").write_text(header + "".join(f"n1_{i},1,{1 + i % 4},0\n" for i in range(24)))
    Image.fromarray(noise(5, 24)).save(root / "photo" / TX / "dog" / "n1_5.jpg")
    status, findings, page = audited(cli, root)
    assert status == 0
    assert findings == {"small images": ("warning", 1), "flag: error": ("note", 1), "difficulty": ("note", 24)}
    assert "6 of difficulty 3" in page and "n1_5.jpg: 24 px" in page


def write_folder(root: Path, captions: list[str]) -> None:
    root.mkdir()
    rows = []
    for i, caption in enumerate(captions):
        Image.fromarray(noise(i)).save(root / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": caption}))
    (root / "metadata.jsonl").write_text("\n".join(rows))


def test_captions_of_a_folder(cli, tmp_path: Path):
    captions = [f"a red apple number {i % 3}" for i in range(30)]
    captions[4], captions[5] = "", "word " * 200
    write_folder(tmp_path / "own", captions)
    Image.fromarray(noise(99)).convert("CMYK").save(tmp_path / "own" / "7.tif")
    rows = (tmp_path / "own" / "metadata.jsonl").read_text().replace("7.png", "7.tif", 1)
    (tmp_path / "own" / "metadata.jsonl").write_text(rows)
    status, findings, _ = audited(cli, tmp_path / "own", "data=folder")
    assert status == 0 and findings["empty captions"] == ("warning", 1) and findings["long captions"] == ("warning", 1)
    assert findings["other channels"] == ("note", 1)


def test_missing_rows_of_a_folder(cli, tmp_path: Path):
    write_folder(tmp_path / "own", ["a cat"] * 30)
    (tmp_path / "own" / "9.png").unlink()
    status, findings, page = audited(cli, tmp_path / "own", "data=folder")
    assert status == 1 and findings["missing partners"] == ("error", 1) and "9.png: no such file" in page


def test_a_page_takes_no_markup_from_the_data(cli, tmp_path: Path):
    write_folder(tmp_path / "own", ["", *["<script>alert(1)</script>"] * 30])
    _, _, page = audited(cli, tmp_path / "own", "data=folder")
    assert "<script>" not in page


def test_refusals(refused, tmp_path: Path):
    refused(main, says=("rendered", "sketchy"))
    refused(main, "data=sketchy", says=("data.root",))
    refused(main, "data=sketchy", f"data.root={tmp_path}", "limit=-1", says=("limit=-1",))


def test_limit(cli, root: Path):
    _, _, page = audited(cli, root, "limit=10")
    assert re.search(r"files inspected</th><td>10<", page)


def test_hashes_survive_scaling_and_compression(tmp_path: Path):
    for seed in range(12):
        Image.fromarray(noise(seed)).save(tmp_path / f"{seed}.png")
        Image.fromarray(noise(seed)).resize((60, 60), Image.Resampling.BICUBIC).save(tmp_path / f"{seed}.jpg", quality=70)
    Image.new("RGB", (50, 50), "white").save(tmp_path / "white.png")
    Image.new("RGB", (60, 60), "red").save(tmp_path / "red.png")
    looks = inspect(tmp_path, sorted(path.name for path in tmp_path.iterdir()), lambda: None)
    assert near(looks) and {frozenset(p.partition(".")[0] for p in pair) for pair in near(looks)} <= {
        frozenset((str(seed),)) for seed in range(12)}  # fmt: skip
    assert len(near(looks)) >= 10 and not exact(looks)
    assert is_flat(hash_of(np.full((40, 40, 3), 255, np.uint8)))


@pytest.mark.long
def test_real_folders_have_no_errors(cli, shared_data: Path, tmp_path: Path):
    """Only the first files of each, for speed.

    Args:
        cli: Runs a command line.
        shared_data: The real samples.
        tmp_path: A folder for the page.
    """
    for name, folder in (("sketchy", "sketchy"), ("coco", "coco_mini"), ("openmoji", "openmoji72")):
        if not (shared_data / folder).is_dir():
            pytest.skip(f"no real sample: data/{folder} is absent")
        status, printed, _ = cli(main, f"data={name}", f"data.root={shared_data / folder}", "data.size=64", "limit=40",
                                 "data.val_share=0.2", f"out={tmp_path / 'audit.html'}")  # fmt: skip
        assert status == 0, printed
