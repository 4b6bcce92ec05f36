"""Exchange with the judges of other benchmarks: files as their own code reads them, and their results read back.

Each `judge` here restates in a few lines how the benchmark's code lists and names things, and answers yes to everything
but the scenes that a test marks as wrong.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eval.export import main
from eval.judges import coco_mig, compbench, geneval, layoutsam
from eval.judges.formats import BENCHMARKS
from eval.judges.scenes import Figure, Scene, Thing, box_of, scene_of
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Item, SceneObject
from ragaf_exp.report.run.judged import read_judged

LEFT, RIGHT = (0.0, 0.25, 0.5, 0.75), (0.5, 0.25, 1.0, 0.75)


def scene(number: int, *words: str) -> Scene:
    """A scene of up to three objects, each named as "colour noun"."""
    boxes = (LEFT, RIGHT, (0.25, 0.0, 0.75, 0.25))
    things = [Thing(word.split()[1], word.split()[0], f"a {word}", box) for word, box in zip(words, boxes, strict=False)]
    image = np.full((32, 32, 3), number, np.uint8)
    return Scene(f"test-{number}", " and ".join(thing.phrase for thing in things) or "nothing", image, tuple(things))


SCENES = [scene(1, "red apple", "blue chair"), scene(2, "green car"), scene(3, "yellow cup", "red dog", "white cat")]
OK = set[int]()


def judge_geneval(out: Path, wrong: set[int] = OK) -> Path:
    rows = []
    for folder in sorted(path for path in out.iterdir() if path.is_dir() and path.name.isdigit()):
        metadata = json.loads((folder / "metadata.jsonl").read_text())
        for name in (path.name for path in (folder / "samples").iterdir() if re.match(r"\d+\.png", path.name)):
            assert all(entry["count"] == 1 and entry["class"] for entry in metadata["include"])
            rows.append({"filename": name, "tag": metadata["tag"], "prompt": metadata["prompt"], "reason": "",
                         "correct": int(folder.name) not in wrong, "metadata": json.dumps(metadata)})  # fmt: skip
    (out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out / "results.jsonl"


def judge_compbench(out: Path, wrong: set[int] = OK) -> Path:
    names = [path.name for path in (out / "samples").iterdir()]
    names.sort(key=lambda name: int(name.split("_")[-1].split(".")[0]))
    prompts = (out / "color_val.txt").read_text().splitlines()
    assert [name.split("_")[0] for name in names] == prompts
    rows = [{"question_id": i, "answer": f"{float(i not in wrong):.4f}"} for i in range(len(names))]
    (out / "vqa_result.json").write_text(json.dumps(rows))
    return out / "vqa_result.json"


def judge_coco_mig(out: Path, wrong: set[int] = OK) -> Path:
    layouts = json.loads((out / "sample_prompt_color_split.json").read_text())
    instances = right = 0
    for path in (out / "images").iterdir():
        number = path.name.split("_")[-1].split(".")[0]
        for segment in layouts[number]["segment"]:
            colour, noun = segment["label"].split(" ")[0], " ".join(segment["label"].split(" ")[1:])
            assert colour in coco_mig.COLOURS and noun
            x0, y0, x1, y1 = np.array(segment["bbox"]) * 512
            assert 0 <= x0 < x1 <= 512 and 0 <= y0 < y1 <= 512
            instances, right = instances + 1, right + (int(number) not in wrong)
    content = {"inst_sucess_ratio": right / instances, "inst_level_sucess_ratio": [1.0, 0.5, 0.0, 0.0, 0.0], "miou": 0.75}
    (out / "metric_eval.json").write_text(json.dumps(content))
    return out / "metric_eval.json"


def judge_layoutsam(out: Path, wrong: set[int] = OK) -> Path:
    parquet = pytest.importorskip("pyarrow.parquet")
    stats = {}
    for number, row in enumerate(parquet.read_table(out / "data").to_pylist()):
        boxes = [[round(x / row["width"], 3) for x in box] for box in ast.literal_eval(row["bbox_list"])]
        nouns, phrases = (ast.literal_eval(row[key]) for key in ("region_captions", "detail_region_captions"))
        picture = Image.open(out / "images" / row["file_name"])
        assert picture.size == (512, 512) and row["file_name"].endswith(".jpg") and len(boxes) == len(nouns) == len(phrases)
        for box in boxes:
            assert min(picture.crop([int(x * 512) for x in box]).size) > 0
        score = 0.0 if number in wrong else float(len(boxes))
        stats[row["file_name"]] = {"bbox_count": len(boxes), **{f"score_{name}": score for name in layoutsam.SCORES}}
    (out / "minicpm-vqa.json").write_text(json.dumps(stats))
    return out / "minicpm-vqa.json"


JUDGES: dict[str, Callable[..., Path]] = {
    "geneval": judge_geneval, "compbench": judge_compbench, "coco_mig": judge_coco_mig, "layoutsam": judge_layoutsam,
}  # fmt: skip


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_is_written_is_read_by_the_judge_and_back(name, tmp_path):
    written = BENCHMARKS[name].write(SCENES, tmp_path)
    figures = BENCHMARKS[name].read(JUDGES[name](tmp_path), len(written.keys))
    assert figures[0].value == 1.0 and set(written.keys) <= {one.key for one in SCENES}
    assert written.objects == sum(len(one.things) for one in SCENES if one.key in written.keys)
    wrong = BENCHMARKS[name].read(JUDGES[name](tmp_path, {0}), len(written.keys))
    assert wrong[0].value < 1.0


def test_figures_have_numbers_and_intervals(tmp_path):
    geneval.write(SCENES, tmp_path)
    figures = {figure.title: figure for figure in geneval.read(judge_geneval(tmp_path, {0}), 3)}
    assert figures["correct images"].value == pytest.approx(2 / 3) and figures["correct images"].n == 3
    assert figures["score, the mean over tags"].value == pytest.approx(2 / 3)  # color_attr 0, colors 1, 3_objects 1
    low, high = figures["correct images"].ci95
    assert 0 <= low < 2 / 3 < high <= 1


def test_boxes_of_layoutsam_count_with_intervals_over_images(tmp_path):
    layoutsam.write(SCENES, tmp_path)
    spatial = layoutsam.read(judge_layoutsam(tmp_path, {1}), 3)[0]
    assert spatial.value == pytest.approx(5 / 6) and spatial.n == 6


def test_levels_of_coco_mig_and_its_printed_output(tmp_path):
    written = coco_mig.write(SCENES, tmp_path)
    assert written.keys == ["test-1", "test-3"]
    assert written.left_out["has fewer than 2 or more than 6 objects"] == 1
    assert sum("divides by zero" in reason for reason in written.left_out) == 3  # no scene of 4, 5 or 6 objects
    (tmp_path / "log.txt").write_text(
        "copying\nINST SUCESS RATIO: 0.66\nINST Level SUCESS RATIO: [0.74, 0.67, 0.67, 0.63, 0.66]\nMIOU SCORE: 0.56\n"
    )
    figures = {figure.title: figure for figure in coco_mig.read(tmp_path / "log.txt", 2)}
    assert figures["instance success"] == Figure("instance success", 0.66, 2)
    assert figures["instance success, 6 objects"].value == 0.66 and figures["mean IoU"].value == 0.56


def test_scenes_that_a_judge_cannot_take_are_counted(tmp_path):
    scenes = [scene(1, "cyan apple"), scene(2, "red apple", "blue apple"), scene(3), scene(4, "red apple")]
    written = geneval.write(scenes, tmp_path / "a")
    assert written.keys == ["test-4"] and sorted(written.left_out.values()) == [1, 1, 1]
    odd = Scene("x", "a/b", scenes[0].image, scenes[0].things)
    long = Scene("y", "red " * 100, scenes[0].image, scenes[0].things)
    assert compbench.write([odd, long, *scenes], tmp_path / "b").keys == [one.key for one in scenes]
    assert coco_mig.write(scenes, tmp_path / "c").keys == ["test-2"]
    assert layoutsam.write(scenes, tmp_path / "d").keys == ["test-1", "test-2", "test-4"]


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "[1]", '{"a": 1}', '[{"answer": "x"}]', "\x00", '{"miou": 7}'])
def test_other_files_are_refused_in_one_line(name, content, tmp_path):
    (tmp_path / "file").write_text(content)
    with pytest.raises(UserError) as refusal:
        BENCHMARKS[name].read(tmp_path / "file", 3)
    assert "\n" not in str(refusal.value) and "file" in str(refusal.value)
    with pytest.raises(UserError):
        BENCHMARKS[name].read(tmp_path / "missing", 3)


@pytest.mark.parametrize("name", ["geneval", "compbench", "layoutsam"])
def test_results_of_another_number_of_scenes_are_refused(name, tmp_path):
    BENCHMARKS[name].write(SCENES, tmp_path)
    with pytest.raises(UserError, match="were exported"):
        BENCHMARKS[name].read(JUDGES[name](tmp_path), 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 14), st.integers(0, 14), st.integers(1, 6), st.integers(1, 6))
def test_a_box_encloses_its_mask_tightly(top, left, height, width):
    mask = np.zeros((20, 20), bool)
    mask[top : top + height, left : left + width] = True
    x0, y0, x1, y1 = (round(share * 20) for share in box_of(mask))
    assert (x0, y0, x1, y1) == (left, top, left + width, top + height)


def test_objects_that_are_hidden_have_no_box():
    image, objects = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    objects[2:4, 2:6] = 1
    things = (SceneObject(1, "star", "red", "plain", (2, 10)), SceneObject(2, "ring", "blue", "", (0, 1)))
    one = scene_of(Item("k", image, "a red star", objects=things, object_map=objects), image)
    assert one.things == (Thing("star", "red", "red star", (0.25, 0.25, 0.75, 0.5)),)


@pytest.mark.long
def test_the_command_writes_and_reads_and_the_report_says_that_judge_and_data_differ(cli, refused, run_copy, tmp_path):
    out = tmp_path / "judged"
    arguments = (f"run={run_copy}", f"out={out}")
    status, message, err = cli(main, *arguments, "format=compbench", "items=3")
    assert status == 0, err
    assert "run its judge there" in message
    manifest = json.loads((out / "export.json").read_text())
    assert len(manifest["keys"]) == 3 and manifest["images"] == "generated"
    refused(main, *arguments, "format=compbench", says=("exists already",))
    status, message, err = cli(main, *arguments, f"read={judge_compbench(out, {0})}")
    assert status == 0 and "0.667" in message and "do not compare" in message, err
    (judgement,) = read_judged(run_copy / "judged.json")
    assert judgement.rows[0]["value"] == "0.667" and judgement.scenes == 3
    report = (run_copy / "report.html").read_text()
    assert "By the judges of other benchmarks" in report and "T2I-CompBench" in report and "do not compare" in report
    manifest["config_hash"] = "0" * 12
    (out / "export.json").write_text(json.dumps(manifest))
    refused(main, *arguments, f"read={out / 'vqa_result.json'}", says=("another run",))


@pytest.mark.parametrize(("arguments", "says"), [
    (["out=x", "format=geneval"], "run=: missing"), (["run=x", "out=x"], "format=: must be one of geneval"),
    (["run=x", "out=x", "format=dpg"], "format=dpg: must be one of"),
    (["run=x", "out=new", "format=geneval", "items=-1"], "items=-1"),
    (["run=x", "out=x", "read=y", "format=geneval"], "not with read="),
    (["run=x", "out=new", "format=geneval", "images=no"], "images=no"),
    (["run=nowhere", "out=new", "format=geneval"], "no such run folder"),
])  # fmt: skip
def test_arguments_are_checked(refused, arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(main, *arguments, says=(says,))
