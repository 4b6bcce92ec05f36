"""The studio on runs of tasks that edit an image: removal with a mask, white balance without one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the studio's packages are not installed; pip install 'ragaf_exp[studio]'")

from ragaf_exp.config.compose import compose_config
from ragaf_exp.data.uploads import png
from ragaf_exp.experiments.experiment import run
from ragaf_exp.inference.recipes import ImageRecipe, Recipe, Settings, SketchRecipe
from ragaf_exp.studio.engine import Studio
from ragaf_exp.studio.jobs import Job

pytestmark = pytest.mark.long

ONE_STAGE = "stage=coarse stage.coarse.steps=4 stage.validate_every=4 stage.checkpoint_every=4 eval.metrics=[]".split()
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def studio_of(tiny: list[str], task: str, folder: Path) -> Studio:
    """A studio on a tiny run of a task."""
    replaced = {word.partition("=")[0] for word in ONE_STAGE}
    shared = [word for word in tiny if word.partition("=")[0] not in replaced]
    path = run(compose_config([f"+experiment={task}", *shared, *ONE_STAGE, f"runs={folder}"])).path
    studio = Studio.load(path, None)
    studio.warm_up(lambda: False)
    studio.idle(lambda: False)
    return studio


def work(studio: Studio, recipe: Recipe) -> dict:
    """The last event of a job, with its kind."""
    job = Job("first-client", recipe, True)
    studio.attempt(job)
    return {"event": job.events[-1].kind, "job": job, **job.events[-1].data}


def image_of(done: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(done["image"].content)))


def test_removal_needs_a_mask_and_changes_only_its_surroundings(tiny, tmp_path):
    studio = studio_of(tiny, "remove", tmp_path)
    edit = {"name": "", "picture": "photo", "mask": "required", "object": False, "method": "trained"}
    assert studio.about()["task"] == {"name": "Remove", "jobs": ["edit"], "edit": edit, "edits": [edit]}
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:20] = 255
    done = work(studio, ImageRecipe(png(IMAGE), png(mask), settings=Settings(steps=2)))
    assert done["event"] == "done" and "evolution.gif" in done["files"]
    result = image_of(done)
    assert result.shape == IMAGE.shape and (result[mask > 0] != IMAGE[mask > 0]).any()
    assert np.array_equal(result[35:, 45:], IMAGE[35:, 45:])
    assert Image.open(io.BytesIO(done["job"].files["evolution.gif"]())).size == (256, 256)  # of the window
    assert "paint over" in work(studio, ImageRecipe(png(IMAGE)))["error"]
    drawing = SketchRecipe(np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.int16))
    assert "edits images" in work(studio, drawing)["error"]


def test_white_balance_takes_the_whole_image_and_keeps_its_transparency(tiny, tmp_path):
    studio = studio_of(tiny, "white_balance", tmp_path)
    edit = {"name": "", "picture": "photo", "mask": "none", "object": False, "method": "trained"}
    assert studio.about()["task"]["edit"] == edit
    alpha = np.full((40, 60, 1), 200, np.uint8)
    done = work(studio, ImageRecipe(png(np.concatenate([IMAGE, alpha], 2)), settings=Settings(steps=2)))
    assert done["event"] == "done", done
    result = image_of(done)
    assert result.shape == (40, 60, 4) and np.array_equal(result[..., 3:], alpha)
    assert (result[..., :3] != IMAGE).any()


def test_a_run_of_several_tasks_takes_the_task_and_its_pictures(tiny, tmp_path):
    """One network for removal and insertion: each names what it needs, and the recipe names the task."""
    studio = studio_of(tiny, "multitask", tmp_path)
    kinds = {kind["name"]: kind for kind in studio.about()["task"]["edits"]}
    assert len(kinds) > 1 and all(kind["mask"] in ("required", "none") for kind in kinds.values())
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:20] = 255
    for name, kind in kinds.items():
        inserted = png(IMAGE[:16, :16]) if kind["object"] else None
        given = png(mask) if kind["mask"] == "required" else None
        done = work(studio, ImageRecipe(png(IMAGE), given, task=name, object=inserted, settings=Settings(steps=2)))
        assert done["event"] == "done" and image_of(done).shape == IMAGE.shape and done["recipe"]["task"] == name, done
    assert "must be one of" in work(studio, ImageRecipe(png(IMAGE), png(mask), task="fly"))["error"]


def test_a_painting_becomes_an_image_of_the_size_of_the_run(tiny, tmp_path):
    studio = studio_of(tiny, "paint", tmp_path)
    edit = studio.about()["task"]["edit"]
    assert (edit["mask"], edit["picture"]) == ("none", "painting")
    painting = np.full((64, 64, 3), 255, np.uint8)
    painting[10:54, [10, 53]] = painting[[10, 53], 10:54] = 0
    painting[25:35, 25:35] = (220, 30, 30)
    done = work(studio, ImageRecipe(png(painting), caption="a mint background", settings=Settings(steps=2)))
    assert done["event"] == "done" and image_of(done).shape == (32, 32, 3), done
