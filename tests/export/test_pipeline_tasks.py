"""Tasks with further pictures: the exported pipeline, in a fresh process, gives the image of `ragaf_exp.sample`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exporting import write
from images import difference
from PIL import Image, ImageDraw

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.export.pipeline import RagafPipeline
from ragaf_exp.sample import main

pytestmark = pytest.mark.process

SHORT = """stage=coarse stage.coarse.steps=4 stage.validate_every=4 stage.checkpoint_every=4 eval.metrics=[]
           eval.pictures=1""".split()
PROMPT = "a red circle"
TASKS = {  # experiment -> arguments of the command line that are files, and further ones
    "inpaint": (("image", "mask"), {}),
    "remove": (("image", "mask"), {}),
    "insert": (("image", "mask", "object"), {}),
    "white_balance": (("image",), {}),
    "paint": (("sketch_image",), {}),
    "multitask": (("image", "mask"), {"task": "remove"}),
}
NAMES = {"mask": "mask_image"}  # column -> argument of diffusers' pipelines, where it has another name
SCRIPT = """
import json, sys
from ragaf_exp.export.pipeline import RagafPipeline
for job in json.loads(sys.argv[1]):
    pipeline = RagafPipeline.from_pretrained(job["folder"])
    pipeline.set_progress_bar_config(disable=True)
    pipeline(**job["arguments"]).images[0].save(job["out"])
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Pictures of 70x100 pixels, and a mask of a part of them."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("image", "object"):
        Image.fromarray(rng.integers(0, 256, (70, 100, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    mask = np.zeros((70, 100), np.uint8)
    mask[20:40, 30:60] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    painting = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(painting).ellipse((12, 12, 50, 50), outline="black", width=3)
    ImageDraw.Draw(painting).ellipse((26, 26, 38, 38), fill=(215, 30, 35))
    painting.save(folder / "sketch_image.png")
    return {path.stem: str(path) for path in folder.glob("*.png")}


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> dict[str, Path]:
    root, replaced = tmp_path_factory.mktemp("tasks"), {word.partition("=")[0] for word in SHORT}
    base = [word for word in tiny if word.partition("=")[0] not in replaced]
    return {
        task: run(compose_config([f"+experiment={task}", *base, *SHORT, f"runs={root}/{task}"])).path for task in TASKS
    }


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("task_exports")
    return {task: write(folder, root / task, "diffusers") for task, folder in runs.items()}


@pytest.fixture(scope="module")
def images(exports, files, tmp_path_factory) -> dict[str, np.ndarray]:
    """The images of the exported pipelines."""
    out, jobs = tmp_path_factory.mktemp("images"), []
    for task, (columns, further) in TASKS.items():
        pictures = {NAMES.get(name, name): files[name] for name in columns}
        arguments = {"prompt": PROMPT, "seed": 3, **pictures, **further}
        jobs.append({"folder": str(exports[task]), "out": str(out / f"{task}.png"), "arguments": arguments})
    done = subprocess.run([sys.executable, "-c", SCRIPT, json.dumps(jobs)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return {path.stem: np.asarray(Image.open(path)) for path in out.iterdir()}


@pytest.mark.parametrize("task", TASKS)
def test_the_image_equals_that_of_the_command_line(task, runs, images, files, cli, tmp_path):
    columns, further = TASKS[task]
    given = [f"{name}={files[name]}" for name in columns] + [f"{name}={value}" for name, value in further.items()]
    status, _, err = cli(main, f"run={runs[task]}", f"out={tmp_path}", *given, f"prompt={PROMPT}", "seed=3")
    assert status == 0, err
    (path,) = [tmp_path / name for name in ("result.png", "stage1.png") if (tmp_path / name).exists()]
    ours = np.asarray(Image.open(path))
    assert difference(ours, images[task]) == 0 and ours.std() > 5
    if "image" in columns:
        assert difference(ours, Image.open(files["image"])) > 0, "it was edited"


def test_removal_changes_the_surroundings_too(images, files):
    mask, before = (np.asarray(Image.open(files[name])) for name in ("mask", "image"))
    changed = (images["remove"] != before).any(-1)
    assert changed[mask == 0].any() and not (images["inpaint"] != before).any(-1)[mask == 0].any()


WRONG = {
    "inpaint": ({"image": "image"}, "mask: missing; this run's task takes image, mask, prompt, sketch"),
    "white_balance": ({"image": "image", "mask_image": "mask"}, "mask: this run's task takes image, prompt"),
    "paint": ({}, "sketch_image: missing; this run's task takes sketch_image, prompt"),
    "multitask": ({"image": "image", "mask_image": "mask"}, "task=: this run has inpaint, remove"),
}


@pytest.mark.parametrize("task", WRONG)
def test_other_pictures_than_the_tasks_are_one_line(task, exports, files):
    pictures, message = WRONG[task]
    with pytest.raises(UserError, match=message) as caught:
        RagafPipeline.from_pretrained(exports[task])(PROMPT, **{name: files[file] for name, file in pictures.items()})
    assert "\n" not in str(caught.value)


def test_an_empty_mask_leaves_the_image_as_it_is(exports, files):
    nothing = np.zeros((70, 100), np.uint8)
    result = RagafPipeline.from_pretrained(exports["inpaint"])(PROMPT, image=files["image"], mask_image=nothing)
    assert difference(np.asarray(Image.open(files["image"])), result.images[0]) == 0
