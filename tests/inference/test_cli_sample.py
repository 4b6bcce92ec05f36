"""python -m ragaf_exp.sample: any drawing, any sentence, its output files, and all refusals."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ragaf_exp.data.decode import MAX_PIXELS
from ragaf_exp.sample import main

pytestmark = pytest.mark.process

FILES = {"sketch.png", "regions.png", "stage1.png", "stage2.png", "attention.png", "attention_steps.png",
         "attention.gif", "comparison.png", "prompt.txt", "result.json"}  # fmt: skip
OVER_STEPS = {"attention_steps.png", "attention.gif"}  # not drawn for batches, unless asked for


def drawing(size: tuple[int, int] = (90, 70), ink: int = 0, paper: int = 255) -> Image.Image:
    """Two rings, one within the other."""
    picture = Image.new("L", size, paper)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((20, 10, 70, 60), outline=ink, width=3)
    pen.rectangle((38, 28, 52, 42), outline=ink, width=3)
    return picture


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    drawing().save(tmp_path / "plain.png")
    return tmp_path / "plain.png"


@pytest.fixture
def make(cli, finished, tmp_path):
    """make(sketch, *more) -> the output folder of a sampled image."""

    def call(sketch: Path, *more: str, out: str = "out", prompt: str = "a red circle") -> Path:
        arguments = [f"run={finished}", f"sketch={sketch}", f'prompt="{prompt}"', f"out={tmp_path / out}", *more]
        status, _, err = cli(main, *arguments)
        assert status == 0, err
        return tmp_path / out

    return call


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# --- what it writes


def test_a_real_process_writes_every_file(process, finished, plain, tmp_path):
    out = tmp_path / "deep" / "out"
    arguments = [f"run={finished}", f"sketch={plain}", 'prompt="a red circle on a beige background"', f"out={out}"]
    ended = process("ragaf_exp.sample", *arguments, "seed=5", "steps=3", "guidance=2", "strength=0.7", cwd=tmp_path)
    assert ended.returncode == 0 and ended.stderr == "", ended.stderr
    assert str(out) in ended.stdout and {p.name for p in out.iterdir()} == FILES
    assert (out / "prompt.txt").read_text() == "a red circle on a beige background\n"
    result = json.loads((out / "result.json").read_text())
    wanted = {"seed": 5, "steps": 3, "guidance": 2.0, "strength": 0.7, "scheduler": "dpm", "size": 32}
    assert {k: result[k] for k in wanted} == wanted
    assert result["prompt"] == "a red circle on a beige background" and result["sketch"] == str(plain)
    assert result["regions"] >= 2 and result["sample_s"] > 0 and result["run"] == str(finished.resolve())
    assert picture(out / "stage1.png").shape == picture(out / "stage2.png").shape == (32, 32, 3)


def test_the_same_seed_is_the_same_bytes(make, plain):
    first, again, other = make(plain, "seed=3"), make(plain, "seed=3", out="b"), make(plain, "seed=4", out="c")
    for name in ("stage1.png", "stage2.png", "attention.png"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "stage2.png").read_bytes() != (other / "stage2.png").read_bytes()
    assert (first / "sketch.png").read_bytes() == (other / "sketch.png").read_bytes()


def test_prompt_and_settings_change_the_image(make, plain):
    plain_image = (make(plain, "steps=4") / "stage2.png").read_bytes()
    requests = {"prompt": "a blue star", "guidance=5": None, "sketch_guidance=4": None, "steps=2": None,
             "strength=0.3": None, "scheduler=ddim": None, "scheduler=euler": None}  # fmt: skip
    for i, (name, prompt) in enumerate(requests.items()):
        more = [] if prompt else ["steps=4", name] if not name.startswith("steps") else [name]
        out = make(plain, "steps=4", out=f"o{i}", prompt=prompt) if prompt else make(plain, *more, out=f"o{i}")
        assert (out / "stage2.png").read_bytes() != plain_image, name


def test_an_empty_prompt_is_unconditional(make, plain, cli, finished, tmp_path):
    out = make(plain, prompt="")
    assert (out / "prompt.txt").read_text() == "\n" and (out / "attention.png").exists()
    status, _, err = cli(main, f"run={finished}", f"sketch={plain}", f"out={tmp_path / 'none'}")
    assert status == 0, err
    assert (tmp_path / "none" / "stage2.png").read_bytes() == (out / "stage2.png").read_bytes()


def test_a_prompt_over_the_limit_is_cut_with_a_warning(make, plain, caplog):
    with caplog.at_level(logging.WARNING):
        out = make(plain, prompt="red " * 80 + "and a blue star")
    assert "text.max_tokens=" in caplog.text and "cut before" in caplog.text
    assert (out / "prompt.txt").read_text().endswith("star\n"), "the prompt is kept whole"


def test_any_prompt_is_accepted(make, plain):
    for i, prompt in enumerate(("日本語 🎈 naïve", "= == [a, b] {c: d}", "100% $HOME `ls` \\n", "UPPER lower")):
        out = make(plain, out=f"o{i}", prompt=prompt)
        assert (out / "prompt.txt").read_text() == prompt + "\n"


# --- drawings of every kind


def write_kinds(place: Path) -> dict[str, Path]:
    """Save one drawing in every format in which a drawing may be stored."""
    grey = drawing()
    dark = np.asarray(grey) < 128
    clear = Image.new("RGBA", grey.size, (0, 0, 0, 0))
    clear.putalpha(Image.fromarray((dark * 255).astype(np.uint8)))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    made = {
        "grey.png": grey, "colour.png": grey.convert("RGB"), "light.png": drawing(ink=255, paper=0),
        "alpha.png": clear, "palette.png": grey.convert("P"), "bits.png": grey.convert("1"), "deep.png": deep,
        "cmyk.jpg": grey.convert("CMYK"), "grey.webp": grey, "grey.bmp": grey, "grey.jpg": grey,
    }  # fmt: skip
    for name, image in made.items():
        more = {"quality": 98} if name.endswith(".jpg") else {"lossless": True} if name.endswith(".webp") else {}
        image.save(place / name, **more)
    return {name: place / name for name in made}


def test_every_kind_of_file_is_the_same_drawing(cli, finished, tmp_path):
    """One batch: dark on light, light on dark, alpha, palette, 1 and 16 bits, CMYK, and lossy ones."""
    kinds = write_kinds(tmp_path)
    table = tmp_path / "all.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([["sketch", "prompt"], *([path.name, "a red circle"] for path in kinds.values())])
    status, out, err = cli(main, f"run={finished}", f"batch={table}", f"out={tmp_path / 'out'}")
    assert status == 0 and f"{len(kinds)} images" in out, err
    folders = sorted((tmp_path / "out").iterdir())
    results = [json.loads((f / "result.json").read_text()) for f in folders]
    assert [r["regions"] for r in results] == [3] * len(kinds)
    reference = picture(folders[0] / "sketch.png").astype(float)
    for name, folder in zip(kinds, folders, strict=True):
        assert np.abs(picture(folder / "sketch.png") - reference).mean() < 6, name


@pytest.mark.parametrize("size", [(32, 32), (500, 40), (30, 400), (1, 1), (1600, 1200)])
def test_any_size_and_aspect(size, make, tmp_path):
    image = Image.new("L", size, 255)
    ImageDraw.Draw(image).line((0, 0, *size), fill=0, width=max(1, min(size) // 15))
    image.save(tmp_path / "line.png")
    assert picture(make(tmp_path / "line.png") / "stage2.png").shape == (32, 32, 3)


@pytest.mark.parametrize("shade", [255, 0, 128])
def test_blank_and_black_drawings_work(shade, make, tmp_path):
    Image.new("L", (40, 40), shade).save(tmp_path / "flat.png")
    result = json.loads((make(tmp_path / "flat.png") / "result.json").read_text())
    assert result["regions"] <= 1


def test_the_polarity_can_be_forced(make, tmp_path):
    drawing(ink=255, paper=0).save(tmp_path / "light.png")
    auto, light, dark = (make(tmp_path / "light.png", f"polarity={p}", out=p) for p in ("auto", "light", "dark"))
    assert (auto / "sketch.png").read_bytes() == (light / "sketch.png").read_bytes()
    assert (auto / "sketch.png").read_bytes() != (dark / "sketch.png").read_bytes()


# --- batches


def test_a_batch_is_its_images_one_by_one(cli, make, finished, tmp_path):
    (tmp_path / "in").mkdir()
    drawing().save(tmp_path / "in" / "a.png")
    drawing((70, 90)).save(tmp_path / "in" / "b.png")
    rows = [("a.png", "a red circle"), ("b.png", "a blue star on a beige background"), ("a.png", "")]
    table = tmp_path / "in" / "rows.jsonl"
    table.write_text("".join(json.dumps({"sketch": s, "prompt": p}) + "\n" for s, p in rows))
    status, _, err = cli(main, f"run={finished}", f"batch={table}", f"out={tmp_path / 'many'}", "seed=2")
    assert status == 0, err
    folders = sorted((tmp_path / "many").iterdir())
    assert [f.name for f in folders] == ["0000", "0001", "0002"]
    for folder, (sketch, prompt) in zip(folders, rows, strict=True):
        assert {p.name for p in folder.iterdir()} == FILES - OVER_STEPS
        assert (folder / "prompt.txt").read_text() == prompt + "\n"
        alone = make(tmp_path / "in" / sketch, "seed=2", out=f"one{folder.name}", prompt=prompt)
        difference = np.abs(picture(folder / "stage2.png").astype(int) - picture(alone / "stage2.png").astype(int))
        assert difference.max() <= 1, "but for rounding, the rest of the batch changes nothing"


BATCHES = {
    "missing.csv": (None, ("missing.csv",)),
    "empty.csv": ("", ("empty.csv",)),
    "header.csv": ("sketch,prompt\n", ("header.csv", "no rows")),
    "column.csv": ("drawing,prompt\na.png,x\n", ("column.csv", "sketch")),
    "ragged.csv": ("sketch,prompt\na.png\n", ("ragged.csv",)),
    "file.csv": ("sketch,prompt\nnone.png,x\n", ("none.png",)),
    "broken.jsonl": ('{"sketch": "a.png", "prompt": "x"}\n{"sketch": \n', ("broken.jsonl", "2")),
    "list.jsonl": ("[1]\n", ("list.jsonl",)),
    "number.jsonl": ('{"sketch": 3, "prompt": "x"}\n', ("number.jsonl",)),
    "binary.csv": (b"\xff\xfe\x00\x81", ("binary.csv",)),
    "table.xlsx": ("PK", ("table.xlsx",)),
}


@pytest.mark.parametrize("name", BATCHES)
def test_bad_batches(name, refused, finished, plain, tmp_path):
    content, says = BATCHES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(main, f"run={finished}", f"batch={tmp_path / name}", f"out={tmp_path / 'out'}", says=says)
    assert not (tmp_path / "out").exists()


# --- mistakes


def bomb(path: Path) -> None:
    """A few kilobytes that would be more pixels than are allowed."""
    side = int(MAX_PIXELS**0.5) + 100
    Image.new("1", (side, side)).save(path)


SKETCHES = {
    "missing.png": (lambda path: None, "missing.png"),
    "empty.png": (lambda path: path.write_bytes(b""), "empty.png"),
    "cut.png": (lambda path: (drawing().save(path), path.write_bytes(path.read_bytes()[:120])), "cut.png"),
    "text.png": (lambda path: path.write_text("no picture"), "text.png"),
    "folder.png": (lambda path: path.mkdir(), "folder.png"),
    "huge.png": (bomb, "huge.png"),
}


@pytest.mark.parametrize("name", SKETCHES)
def test_bad_sketches(name, refused, finished, tmp_path):
    write, says = SKETCHES[name]
    write(tmp_path / name)
    arguments = [f"run={finished}", f"sketch={tmp_path / name}", "prompt=x", f"out={tmp_path / 'out'}"]
    refused(main, *arguments, says=(says,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("steps=0", ("steps=0", "between")),
        ("steps=1001", ("steps=1001",)),
        ("steps=2.5", ("steps=2.5", "int")),
        ("steps=many", ("steps=many", "int")),
        ("strength=0", ("strength=0.0", "between")),
        ("strength=1.01", ("strength=1.01",)),
        ("strength=nan", ("strength=nan",)),
        ("guidance=-1", ("guidance=-1.0",)),
        ("guidance=101", ("guidance=101.0",)),
        ("guidance=inf", ("guidance=inf",)),
        ("sketch_guidance=-0.1", ("sketch_guidance=-0.1",)),
        ("seed=-1", ("seed=-1",)),
        ("seed=99999999999999999999", ("seed=",)),
        ("scheduler=best", ("best", "ddim", "dpm", "euler")),
        ("polarity=grey", ("polarity=grey", "auto")),
        ("step=64", ("step=64", "unknown argument", "steps=")),
        ("nonsense", ("nonsense", "known are")),
        ("batch=rows.csv", ("sketch=", "batch=")),
    ],
)
def test_bad_arguments(argument, says, refused, finished, plain, tmp_path):
    arguments = [f"run={finished}", f"sketch={plain}", "prompt=x", f"out={tmp_path / 'out'}"]
    refused(main, *arguments, argument, says=says)
    assert not (tmp_path / "out").exists()


def test_missing_arguments(refused, finished, plain, tmp_path):
    refused(main, says=("run=", "missing"))
    refused(main, f"run={finished}", f"sketch={plain}", says=("out=", "missing"))
    refused(main, f"run={finished}", "prompt=x", f"out={tmp_path}", says=("sketch=", "batch="))


def test_an_output_that_cannot_be_written(refused, finished, plain, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        refused(main, f"run={finished}", f"sketch={plain}", "prompt=x", f"out={out}", says=("file", "a file stands"))
    assert (tmp_path / "file").read_text() == "mine"


def test_sampling_needs_none_of_the_training_data(cli, run_copy, plain, tmp_path):
    """A run on one's own folder, sampled where that folder is not."""
    text = (run_copy / "config.yaml").read_text()
    before, rest = text.split("data:\n", 1)
    after = rest[rest.index("\nsketch:") + 1 :]
    folder = "data:\n  _target_: ragaf_exp.data.sources.folder.Folder\n  root: /gone\n  size: 32\n"
    (run_copy / "config.yaml").write_text(before + folder + after)
    status, _, err = cli(main, f"run={run_copy}", f"sketch={plain}", "prompt=x", f"out={tmp_path / 'out'}")
    assert status == 0, err
