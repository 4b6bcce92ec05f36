"""python -m eval on images that any tool made: figures of the right items, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_clip
from PIL import Image

from eval.clip.scores import Clip, edit_scores
from eval.images import ImageSet
from eval.items import read_items
from ragaf_exp.commands import evaluate as command
from ragaf_exp.config.build import build
from ragaf_exp.config.compose import compose_config

COUNT = 12


@pytest.fixture(scope="module")
def scenes():
    items = build(compose_config(["data.test=16"]).data, "data").split("test")
    return [items[i] for i in range(COUNT)]


@pytest.fixture
def folders(tmp_path, scenes) -> Path:
    """images: the scenes' own pictures with a little noise; next to them reference, sketches, masks and captions."""
    rng = np.random.default_rng(0)
    rows = []
    for i, item in enumerate(scenes):
        noisy = np.clip(item.image.astype(int) + rng.integers(-4, 5, item.image.shape), 0, 255).astype(np.uint8)
        drawing = (255 - 255 * item.drawing).astype(np.uint8)
        pictures = {"images": noisy, "reference": item.image, "sketches": drawing, "masks": item.object_map}
        for name, picture in pictures.items():
            (tmp_path / name / "sub").mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / name / "sub" / f"{i:02d}.png")
        phrases = [item.caption[slice(*thing.span)] for thing in item.objects]
        rows.append({"file_name": f"sub/{i:02d}.png", "text": item.caption, "phrases": phrases})
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def words(folders: Path, *names: str) -> list[str]:
    files = {"captions": "captions.jsonl"}
    return [f"{name}={folders / files.get(name, name)}" for name in names] + [f"out={folders / 'out' / 'found.json'}"]


def test_everything_that_needs_no_download(folders, cli):
    given = words(folders, "images", "reference", "captions", "sketches", "masks")
    status, out, err = cli(command.main, *given)
    assert status == 0, err
    results = json.loads((folders / "out" / "found.json").read_text())
    metrics = results["metrics"]
    assert metrics["psnr"]["n"] == COUNT and metrics["psnr"]["value"] > 35 and metrics["ssim"]["value"] > 0.8
    for name in ("sketch_f1", "sketch_precision", "sketch_recall", "edge_ms_ssim"):
        assert metrics[name]["value"] > 0.9 > 0.5 > metrics[f"{name}_shuffled"]["value"], name
        assert metrics[f"{name}_shuffled"]["n"] == COUNT and metrics[f"{name}_shuffled"]["edges"] == "canny_lab"
    assert metrics["chamfer"]["value"] < 0.01 < metrics["chamfer_shuffled"]["value"]
    assert metrics["chamfer_shuffled"]["higher_is_better"] is False
    assert metrics["binding_accuracy"]["value"] == 1.0 and metrics["leak_rate"]["value"] == 0
    objects = sum(len(json.loads(line)["phrases"]) for line in (folders / "captions.jsonl").read_text().splitlines())
    assert metrics["binding_accuracy"]["n"] == objects
    assert metrics["fd_embedded"]["n"] == COUNT and "warning" in metrics["fd_embedded"]
    assert results["items"]["images"]["used"] == COUNT and results["items"]["pairs"]["pairs"] == COUNT
    assert "fd_embedded" in out and "found.json" in out
    rows = read_items(folders / "out" / "found.items.jsonl")
    assert [row.key for row in rows] == [f"sub/{i:02d}" for i in range(COUNT)]


def test_parts_concern_their_own_images(folders, cli):
    for i in range(3):
        (folders / "sketches" / "sub" / f"{i:02d}.png").unlink()
    (folders / "reference" / "sub" / "11.png").unlink()
    status, _, err = cli(command.main, *words(folders, "images", "reference", "sketches"))
    assert status == 0, err
    results = json.loads((folders / "out" / "found.json").read_text())
    assert results["metrics"]["sketch_f1"]["n"] == COUNT - 3 and results["metrics"]["psnr"]["n"] == COUNT - 1
    assert results["items"]["sketches"] == {"used": COUNT - 3, "images_without": 3}
    assert results["items"]["pairs"] == {"pairs": COUNT - 1, "unpaired": 1, "unpaired_reference": 0}


def test_unnamed_sets_are_compared_as_sets_alone(folders, cli):
    for i, path in enumerate(sorted((folders / "reference" / "sub").iterdir())):
        path.rename(path.with_name(f"other{i}.png"))
    status, _, err = cli(command.main, *words(folders, "images", "reference"))
    metrics = json.loads((folders / "out" / "found.json").read_text())["metrics"]
    assert status == 0 and set(metrics) == {"fd_embedded"}, err


def test_directions_of_edits(folders, cli, tmp_path):
    """The reference is what was edited: its pictures of the same name, with text_before as their captions."""
    model = tiny_clip.save(tmp_path)
    rows = [json.loads(line) for line in (folders / "captions.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows[:-2]):
        row["text_before"] = f"a grey square number {i}"
    (folders / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folders / "images" / "sub" / "00.png").write_bytes((folders / "reference" / "sub" / "00.png").read_bytes())
    clip = [f"eval.clip_config={model['config']}", f"eval.clip_pretrained={model['pretrained']}", "eval.metrics=[clip]"]
    given = [*words(folders, "images", "reference", "captions"), f"cache.folder={tmp_path / 'cache'}", *clip]
    status, _, err = cli(command.main, *given)
    assert status == 0, err
    results = json.loads((folders / "out" / "found.json").read_text())
    entry, values = results["metrics"]["clip_directional"], read_items(folders / "out" / "found.items.jsonl")
    assert entry["n"] == COUNT - 2 == results["items"]["edits"]["used"] and entry["unchanged_images"] == 1
    assert results["metrics"]["clip_directional_shuffled"]["n"] == COUNT - 2
    assert values[0].values["clip_directional"] == 0 and abs(values[1].values["clip_directional"]) > 1e-3
    assert "clip_directional" not in values[-1].values and "clip_score" in values[-1].values
    sets = [folders / "images", folders / "reference"]
    images, sources = (ImageSet.folder(path).subset(range(COUNT - 2)) for path in sets)
    before, after = ([row[key] for row in rows[:-2]] for key in ("text_before", "text"))
    alone = edit_scores(Clip(**model), sources, images, before, after)
    assert alone.values["clip_directional"] == pytest.approx([r.values["clip_directional"] for r in values[:-2]], abs=1e-4)
    status, _, err = cli(command.main, *[word for word in given if not word.startswith("reference")])
    assert status == 2 and "text_before" in err.splitlines()[-1] and "reference=DIR" in err.splitlines()[-1]
    rows[0]["text_before"] = rows[0]["text"].upper()
    (folders / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = cli(command.main, *given)
    assert status == 2 and "row 1: text_before" in err.splitlines()[-1]


def test_unavailable_metrics_are_reported_and_not_replaced(folders, cli, monkeypatch):
    given = [*words(folders, "images", "reference"), "eval.metrics=[fid,kid,fd_embedded]"]
    monkeypatch.setenv("TORCH_HOME", str(folders / "nowhere"))
    status, out, err = cli(command.main, *given)
    results = json.loads((folders / "out" / "found.json").read_text())
    assert status == 0, err
    assert set(results["unavailable"]) == {"fid", "kid"} and "eval.inception" in results["unavailable"]["fid"]
    assert "fid" not in results["metrics"] and "fid: unavailable" in out


def test_a_truncated_file_stops_or_is_counted(folders, cli):
    path = folders / "images" / "sub" / "04.png"
    path.write_bytes(path.read_bytes()[:200])
    status, _, err = cli(command.main, *words(folders, "images", "reference"))
    assert status == 2 and "04.png" in err.splitlines()[-1] and "Traceback" not in err
    status, _, err = cli(command.main, *words(folders, "images", "reference"), "on_error=skip")
    results = json.loads((folders / "out" / "found.json").read_text())
    assert status == 0, err
    assert results["items"]["images"]["skipped"] == 1 and results["metrics"]["psnr"]["n"] == COUNT - 1
    assert any("skipped" in text for text in results["warnings"])


def test_a_reference_from_the_training_set_is_reported(folders, cli):
    training = folders / "training"
    training.mkdir()
    for i in range(2):
        Image.open(folders / "reference" / "sub" / f"{i:02d}.png").save(training / f"seen{i}.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(training / "other.png")
    status, out, err = cli(command.main, *words(folders, "images", "reference"), f"training={training}")
    results = json.loads((folders / "out" / "found.json").read_text())
    assert status == 0, err
    assert any("2 of 12 images are in the training set" in text for text in results["warnings"]), results["warnings"]
    assert "in the training set" in out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: [], "run="),
        (lambda w: [*w, "run=x"], "run="),
        (lambda w: [x for x in w if not x.startswith("out")], "out="),
        (lambda w: [x for x in w if not x.startswith("reference")], "reference="),
        (lambda w: [*w, "on_error=ignore"], "on_error=ignore"),
        (lambda w: [*w, "eval.metrics=[is]"], "eval.metrics"),
        (lambda w: [*w, "eval.edges=hough"], "eval.edges=hough"),
        (lambda w: [*w, "eval.imception=x"], "eval.imception"),
        (lambda w: [*w, "masks=nowhere"], "captions="),
        (lambda w: [*w, "sketches=nowhere"], "sketches=nowhere"),
        (lambda w: [*w, "captions=nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_unknown_and_invalid_arguments_are_refused(folders, change, says, refused):
    refused(command.main, *change(words(folders, "images", "reference")), says=(says,))


def test_masks_must_fit_their_captions(folders, cli):
    rows = [json.loads(line) for line in (folders / "captions.jsonl").read_text().splitlines()]
    rows[0]["phrases"] = rows[0]["phrases"][:1]
    (folders / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = cli(command.main, *words(folders, "images", "captions", "masks"))
    assert status == 2 and "sub/00" in err.splitlines()[-1] and "1 phrases" in err.splitlines()[-1]
