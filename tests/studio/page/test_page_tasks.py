"""The tasks in the studio's page: a run is chosen in the gallery, then its task, and each task gets its pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_driver import StudioPage, circle, until
from PIL import Image
from studio_worker import loaded, served

from ragaf_exp.config.compose import compose_config
from ragaf_exp.data.uploads import png
from ragaf_exp.experiments.experiment import run

pytestmark = pytest.mark.long
ONE_STAGE = "stage=coarse stage.coarse.steps=4 stage.validate_every=4 stage.checkpoint_every=4".split()
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
HOLE = (slice(15, 25), slice(20, 40))  # of the photo, within what the brush covers


@pytest.fixture(scope="module")
def task_link(finished: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio that starts with a run of sketch_text; its gallery has a run of several tasks and one of painting."""
    runs = tmp_path_factory.mktemp("tasks")
    replaced = {word.partition("=")[0] for word in ONE_STAGE}
    words = [word for word in tiny if word.partition("=")[0] not in replaced]
    for task in ("multitask", "paint"):
        run(compose_config([f"+experiment={task}", *words, *ONE_STAGE, f"name={task}", f"runs={runs}"]))
    with loaded(finished, runs) as worker, served(worker) as link:
        yield link


@pytest.fixture
def studio(browser: Any, task_link: str) -> Iterator[StudioPage]:
    page = StudioPage(browser, task_link)
    until(lambda: about(page)["run"], "loaded run")
    if about(page)["draws"]:
        page.first_picture()  # its requests would be refused once another run is chosen
    yield page
    page.close()


def about(studio: StudioPage) -> dict[str, Any]:
    script = """import('/static/api.js').then(({ about }) => ({
        run: about.run ?? null, state: about.state, draws: about.task?.jobs[0] === 'sketch' }))"""
    return studio.page.evaluate(script)


def use(studio: StudioPage, experiment: str) -> None:
    """Choose a run in the gallery."""
    if about(studio)["run"]["name"].startswith(experiment):
        return
    studio.page.click("[data-page=gallery]")
    studio.page.locator(f"[aria-label^='Open {experiment}/']").click()
    studio.page.get_by_role("button", name="Use this run in the studio").click()
    reloaded(studio, experiment)


def reloaded(studio: StudioPage, name: str) -> None:
    """Wait for the page that loads again with the chosen run."""
    until(lambda: studio.page.locator("[data-view=studio]").is_visible(), "reloaded page")
    until(lambda: (now := about(studio))["run"] and now["run"]["name"].startswith(name), f"run {name}")
    until(lambda: about(studio)["state"] == "ready", "ready run")


def upload(studio: StudioPage, field: str, picture: np.ndarray) -> None:
    studio.page.set_input_files(field, {"name": "photo.png", "mimeType": "image/png", "buffer": png(picture)})


def task(studio: StudioPage, name: str) -> None:
    """Choose a task, and open the photo."""
    studio.page.select_option("#task", name)
    upload(studio, "#file", PHOTO)
    until(lambda: studio.page.locator("#go").is_enabled(), "photo")


def brush(studio: StudioPage) -> None:
    """Paint over the middle of the photo, which fills the width of the stage."""
    studio.page.locator("#width").fill("60")
    studio.stroke([(0.3, 0.45), (0.7, 0.45)])
    studio.stroke([(0.3, 0.55), (0.7, 0.55)])


def recipe(studio: StudioPage) -> dict[str, Any]:
    return studio.page.evaluate("import('/static/result.js').then(({ view }) => view.current.recipe)")


def picture(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB"))


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(-1)


def insert(studio: StudioPage) -> None:
    brush(studio)
    studio.page.click("#go")
    until(lambda: "object" in studio.status, "message that the object is missing")
    upload(studio, "#object-file", PHOTO[:16, :20])


@pytest.mark.parametrize(("name", "prepare"), [("inpaint", brush), ("remove", brush), ("insert", insert)])
def test_tasks_with_a_mask_change_what_the_brush_covers(
    studio: StudioPage, name: str, prepare: Callable[[StudioPage], None]
) -> None:
    use(studio, "multitask")
    task(studio, name)
    prepare(studio)
    result = studio.generate()
    sent = recipe(studio)
    mask = picture(sent["mask"])[..., 0] > 127
    assert sent["task"] == name and mask.shape == PHOTO.shape[:2] and mask[HOLE].all() and not mask[:, :10].any()
    assert (sent["object"] is not None) == (name == "insert")
    difference = changed(PHOTO, result)
    assert difference[HOLE].mean() > 0.5
    assert name == "remove" or not difference[:, :5].any()  # removal also changes shadows around the hole
    if name == "insert":
        assert np.array_equal(picture(sent["object"]), PHOTO[:16, :20])


def test_an_object_can_be_drawn_on_a_canvas_of_its_own(studio: StudioPage) -> None:
    use(studio, "multitask")
    task(studio, "insert")
    brush(studio)
    studio.page.locator("#colour").fill("#2040ff")
    box = studio.page.locator("#object").bounding_box()
    assert box is not None
    studio.page.mouse.move(box["x"] + 20, box["y"] + 48)
    studio.page.mouse.down()
    studio.page.mouse.move(box["x"] + 76, box["y"] + 48, steps=5)
    studio.page.mouse.up()
    studio.generate()
    drawn = picture(recipe(studio)["object"])
    assert drawn.shape == (256, 256, 3) and drawn[128, 128].tolist() == [32, 64, 255] and (drawn[0] == 255).all()
    studio.page.keyboard.press("Control+z")
    count = "import('/static/state.js').then(({ doc }) => doc.objectStrokes.length)"
    until(lambda: studio.page.evaluate(count) == 0, "undo")


def test_white_balance_takes_the_photo_alone(studio: StudioPage) -> None:
    use(studio, "multitask")
    task(studio, "white_balance")
    assert studio.page.locator("[data-tool=pen]").is_disabled()
    result = studio.generate()
    assert recipe(studio)["mask"] is None and result.shape == PHOTO.shape and changed(PHOTO, result).mean() > 0.5


def test_painting_sends_lines_and_colours(studio: StudioPage) -> None:
    use(studio, "paint")
    assert studio.page.locator("#go").is_disabled()
    studio.stroke(circle(0.5, 0.5, 0.3))
    studio.page.locator("#colour").fill("#d02030")
    studio.stroke([(0.45, 0.5), (0.55, 0.5)], tool="hint")
    result = studio.generate()
    sent = picture(recipe(studio)["image"])
    assert sent[256, 256].tolist() == [208, 32, 48] and sent[256, 256 + int(0.3 * 512)].max() < 60
    assert (sent[0] == 255).all() and result.shape == (32, 32, 3)


def test_a_saved_edit_opens_with_its_photo_and_mask(studio: StudioPage, tmp_path: Path) -> None:
    use(studio, "multitask")
    task(studio, "remove")
    brush(studio)
    studio.generate()
    first = recipe(studio)
    with studio.page.expect_download() as saved:
        studio.page.click("#share summary")
        studio.page.click("[data-save=png]")
    saved.value.save_as(tmp_path / "edit.png")
    studio.page.click("[data-act=trash]")
    studio.page.set_input_files("#file", tmp_path / "edit.png")
    until(lambda: studio.status.startswith("Recipe"), "recipe")
    until(lambda: studio.shown("ink")[..., 3].any(), "mask on the page")
    again = studio.generate()
    assert np.array_equal(picture(recipe(studio)["mask"]), picture(first["mask"]))
    assert recipe(studio)["task"] == "remove" and changed(PHOTO, again)[HOLE].any()


def test_a_run_of_drawings_inpaints_by_repaint_and_can_be_chosen_again(studio: StudioPage) -> None:
    use(studio, "paint")
    studio.page.click("[data-page=gallery]")
    studio.page.get_by_role("button", name="Use the run of the command line in the studio").click()
    reloaded(studio, "tiny")
    until(lambda: studio.page.locator("#history button").count(), "picture in the history")
    studio.page.click("[data-mode=edit]")
    assert "RePaint" in studio.page.locator("#method").inner_text()
    upload(studio, "#file", PHOTO)
    until(lambda: studio.page.locator("#go").is_enabled(), "photo")
    brush(studio)
    studio.page.locator("details.more summary", has_text="More settings").click()
    studio.page.fill("#resamplings", "1")
    result = studio.generate()
    assert recipe(studio)["resamplings"] == 1 and changed(PHOTO, result)[HOLE].mean() > 0.5
