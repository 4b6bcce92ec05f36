"""The studio's page with a mouse: draw, describe regions, generate, redo one, edit regions, undo, stop, share."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from page_driver import StudioPage, circle, star, until

pytestmark = pytest.mark.long
GROWTH = 0.03  # of the side, by which the area that is sampled again grows


@pytest.fixture
def studio(browser, studio_link):
    page = StudioPage(browser, studio_link)
    page.first_picture()
    yield page
    page.close()


@pytest.fixture
def demo_studio(browser, demo_link):
    page = StudioPage(browser, demo_link)
    page.first_picture()
    yield page
    page.close()


def test_draw_describe_generate_redo(studio):
    """A word changed and redone changes that region's pixels only; the rest is equal to the bit."""
    studio.blank()
    studio.stroke(circle(0.28, 0.5, 0.17))
    studio.regions(2)
    studio.stroke(star(0.71, 0.5, 0.21))
    studio.regions(3)
    studio.write(0.28, 0.5, "red")
    studio.write(0.71, 0.5, "blue")
    studio.page.fill("#caption", "a white background")
    before = studio.generate()
    assert sorted(studio.prompts().values()) == ["", "blue", "red"]
    studio.write(0.71, 0.5, "green")
    state = studio.state()
    assert state["selected"] == [studio.region_at(0.71, 0.5)["id"]]
    after = studio.generate("Control+Shift+Enter")
    star_pixels = state["labels"] == state["labels"][int(0.5 * len(state["labels"])), int(0.71 * len(state["labels"]))]
    far = ~grown(star_pixels, math.ceil(GROWTH * min(star_pixels.shape)) + 1)
    assert np.array_equal(before[far], after[far])
    assert not np.array_equal(before[star_pixels], after[star_pixels])


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    wide = np.pad(mask, pixels)
    shifts = [np.roll(wide, (y, x), (0, 1)) for y in range(-pixels, pixels + 1) for x in range(-pixels, pixels + 1)]
    return np.any(shifts, axis=0)[pixels:-pixels, pixels:-pixels]


def test_ids_and_texts_follow_regions(demo_studio):
    """A third shape keeps the ids, texts and colours of the first two; its number is new."""
    demo_studio.two_shapes()
    demo_studio.write(0.28, 0.5, "red")
    demo_studio.write(0.71, 0.5, "blue")
    before = demo_studio.prompts()
    chip = f"#regions li:has(#prompt-{demo_studio.region_at(0.28, 0.5)['id']}) .chip"
    colour = demo_studio.page.locator(chip).evaluate("element => element.style.background")
    demo_studio.draw(circle(0.5, 0.15, 0.1))
    demo_studio.regions(4)
    after = demo_studio.prompts()
    assert {key: after[key] for key in before} == before
    assert demo_studio.region_at(0.5, 0.15)["id"] not in before
    assert after[demo_studio.region_at(0.5, 0.15)["id"]] == ""  # it does not inherit the background's text
    assert demo_studio.page.locator(chip).evaluate("element => element.style.background") == colour


def test_split_merge_and_undo(studio):
    """A split cuts the region under the line, not the selected one; merge joins; undo restores every bit of both."""
    studio.two_shapes()
    studio.write(0.28, 0.5, "red")
    start = studio.state()
    studio.choose(0.71, 0.5)
    studio.stroke([(0.05, 0.5), (0.28, 0.51), (0.52, 0.5)], tool="split")
    studio.regions(4)
    halves = studio.region_at(0.28, 0.4), studio.region_at(0.28, 0.6)
    assert halves[0]["id"] != halves[1]["id"] and {half["prompt"] for half in halves} == {"red"}
    split = studio.state()
    studio.choose(0.28, 0.4)
    studio.choose(0.71, 0.5, add=True)
    studio.page.click("#merge")
    studio.regions(3)
    assert studio.region_at(0.28, 0.4)["id"] == studio.region_at(0.71, 0.5)["id"]
    studio.page.click("[data-act=back]")
    assert np.array_equal(studio.state()["labels"], split["labels"]) and studio.state()["regions"] == split["regions"]
    studio.page.click("[data-act=back]")
    assert np.array_equal(studio.state()["labels"], start["labels"]) and studio.state()["regions"] == start["regions"]
    studio.page.keyboard.press("Control+Shift+Z")
    assert studio.state()["regions"] == split["regions"]


def test_edits_survive_later_strokes(demo_studio):
    """A split is repeated after a further stroke, with the same ids."""
    demo_studio.two_shapes()
    demo_studio.stroke([(0.05, 0.5), (0.28, 0.51), (0.52, 0.5)], tool="split")
    demo_studio.regions(4)
    before = demo_studio.region_at(0.28, 0.4)["id"], demo_studio.region_at(0.28, 0.6)["id"]
    demo_studio.draw(circle(0.5, 0.15, 0.1))
    demo_studio.regions(5)
    assert (demo_studio.region_at(0.28, 0.4)["id"], demo_studio.region_at(0.28, 0.6)["id"]) == before


def test_paint_and_delete(studio):
    """Paint without a selection makes a region; with one it extends it; Delete gives it to its neighbour."""
    studio.two_shapes()
    studio.page.keyboard.press("v")
    studio.page.evaluate("import('/static/state.js').then(({ select }) => select([]))")
    studio.stroke([(0.4, 0.9), (0.6, 0.9)], tool="paint")
    studio.regions(4)
    new = studio.region_at(0.5, 0.9)
    assert studio.state()["selected"] == [new["id"]]
    studio.stroke([(0.6, 0.9), (0.6, 0.8)], tool="paint")
    until(lambda: studio.region_at(0.6, 0.82)["id"] == new["id"], "larger region")
    studio.page.keyboard.press("Delete")
    studio.regions(3)


def test_undo_has_no_end(studio):
    """Hundreds of changes are undone one by one; typing in a field is one change."""
    studio.two_shapes()
    script = "import('/static/state.js').then(s => { for (let i = 0; i < 400; i++) s.update({ seed: i }); })"
    studio.page.evaluate(script)
    studio.page.evaluate("import('/static/state.js').then(s => { for (let i = 0; i < 400; i++) s.undo(); })")
    assert len(studio.state()["strokes"]) == 2
    studio.write(0.28, 0.5, "striped red")
    studio.page.keyboard.press("Control+z")
    assert set(studio.prompts().values()) == {""}


def test_a_leak_is_shown(demo_studio):
    """A small gap is marked with a ring and a warning."""
    demo_studio.blank()
    demo_studio.draw(circle(0.5, 0.5, 0.3, part=0.94))
    until(lambda: demo_studio.state()["fresh"], "regions")
    until(lambda: demo_studio.page.locator("#leak").is_visible(), "warning of the leak")
    assert "leak" in demo_studio.page.locator("#leak").inner_text()
    assert (demo_studio.shown("over")[..., :3] == (180, 83, 9)).all(-1).sum() > 20
    demo_studio.draw(circle(0.5, 0.5, 0.3))
    until(lambda: not demo_studio.page.locator("#leak").is_visible(), "end of the warning")


def test_pen_pressure_changes_the_width(studio):
    """A pen's stroke is thicker where it is pressed harder. Playwright has no pen, so events are made here."""
    studio.blank()
    studio.page.click("[data-tool=pen]")
    studio.page.evaluate("""() => {
        const ink = document.getElementById('ink'), box = ink.getBoundingClientRect();
        ink.setPointerCapture = () => {};
        const at = (x, y) => ({ clientX: box.left + x * box.width, clientY: box.top + y * box.height });
        const send = (type, x, y, pressure) => ink.dispatchEvent(new PointerEvent(type, { bubbles: true, pointerId: 7,
            pointerType: 'pen', pressure, buttons: 1, ...at(x, y) }));
        for (const [y, pressure] of [[0.3, 0.1], [0.7, 1]]) {
            send('pointerdown', 0.2, y, pressure);
            for (let x = 0.2; x < 0.8; x += 0.05) send('pointermove', x, y, pressure);
            send('pointerup', 0.8, y, pressure);
        }
    }""")
    light, heavy = studio.state()["strokes"]
    assert {p[2] for p in light["points"][1:-1]} == {0.1} and {p[2] for p in heavy["points"][1:-1]} == {1}
    alpha = studio.shown("ink")[..., 3] > 128
    middle = alpha[:, alpha.shape[1] // 2]
    assert middle[len(middle) // 2 :].sum() > 2 * middle[: len(middle) // 2].sum() > 0


def test_stop(studio):
    """Stop ends a picture within a step, and the page is ready for the next."""
    studio.page.fill("#steps", "200")
    studio.page.keyboard.press("Control+Enter")
    until(lambda: studio.status.startswith("Stage"), "first step")
    studio.page.keyboard.press("Escape")
    until(lambda: studio.status == "Stopped", "stop", seconds=10)
    assert studio.page.locator("#go").is_enabled()
    assert studio.page.locator("#history button").count() == 1


def test_unknown_words_are_underlined(studio):
    """A word that no caption had is reported with the words that are used."""
    studio.two_shapes()
    studio.write(0.28, 0.5, "red xyzzy")
    note = studio.page.locator(".words:visible")
    until(note.count, "note on the word")
    assert "xyzzy" in note.inner_text() and "red" in note.inner_text()


def test_markup_in_texts_stays_text(studio):
    """HTML in a prompt is shown and sent as text."""
    studio.two_shapes()
    studio.write(0.28, 0.5, "<img src=x onerror=alert(1)>red")
    studio.generate()
    assert not studio.page.locator("img[src=x]").count()
    assert any("<img" in text for text in studio.prompts().values())


def test_picture_holds_its_recipe(studio, tmp_path):
    """The saved PNG, opened on another drawing, restores strokes, texts, ids' order and seed."""
    studio.two_shapes()
    studio.write(0.28, 0.5, "red")
    studio.page.fill("#seed", "42")
    studio.generate()
    drawn = studio.state()
    files = {what: _save(studio, what, tmp_path) for what in ("png", "recipe")}
    assert json.loads(files["recipe"].read_text())["seed"] == 42
    for file in files.values():
        studio.blank()
        studio.page.set_input_files("#file", file)
        until(lambda: studio.status == "Recipe opened", "recipe")
        state = studio.state()
        assert (state["seed"], len(state["strokes"])) == (42, 2)
        assert np.array_equal(state["labels"], drawn["labels"])
        assert [r["prompt"] for r in state["regions"]] == [r["prompt"] for r in drawn["regions"]]


def _save(studio: StudioPage, what: str, folder: Path) -> Path:
    with studio.page.expect_download() as download:
        studio.page.click("#share summary")
        studio.page.click(f"[data-save={what}]")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_link_opens_the_same_drawing(studio):
    """The link holds drawing and texts in its fragment, which the page removes from the address."""
    studio.context.grant_permissions(["clipboard-read", "clipboard-write"])
    studio.two_shapes()
    studio.write(0.71, 0.5, "blue")
    studio.generate()
    studio.page.click("#share summary")
    studio.page.click("[data-save=link]")
    until(lambda: studio.status.startswith("Link copied"), "link")
    link = studio.page.evaluate("navigator.clipboard.readText()")
    first, regions = studio.page, studio.state()["regions"]
    studio.open(link + "&" + studio.link.split("#")[1])
    until(lambda: len(studio.state()["strokes"]) == 2, "drawing of the link")
    assert [r["prompt"] for r in studio.state()["regions"]] == [r["prompt"] for r in regions]
    assert "#" not in studio.page.url
    first.close()


def test_reload_keeps_drawing_texts_and_history(studio):
    """Everything is back after a reload."""
    studio.two_shapes()
    studio.write(0.28, 0.5, "red")
    studio.generate()
    before, pixels = studio.state(), studio.pixels()
    until(lambda: saved(studio) == before["regions"], "autosave")
    studio.page.reload()
    until(lambda: studio.page.locator("#history button").count() == 2, "history")
    until(lambda: len(studio.state()["strokes"]) == 2, "drawing")
    after = studio.state()
    assert after["regions"] == before["regions"] and np.array_equal(after["labels"], before["labels"])
    assert np.array_equal(studio.pixels(), pixels)


def saved(studio: StudioPage) -> list:
    return studio.page.evaluate("import('/static/state.js').then(s => s.load('doc')).then(doc => doc?.regions)")


def test_a_lost_server_is_reported(studio):
    """Without an answer the page says what to do, and works again once there is one."""
    with studio.offline():
        studio.page.keyboard.press("Control+Enter")
        until(lambda: "does not answer" in studio.status, "report")
    studio.generate()


def test_a_click_explains_a_region(studio):
    """After a picture a click on a region says what it reads."""
    studio.choose(0.3, 0.5)
    until(lambda: studio.status.startswith("Region") and "red" in studio.status, "explanation")


def test_settings_reach_the_recipe(studio):
    """Scheduler, strength, importance, outline, period and steps are those of the recipe that made the picture."""
    studio.two_shapes()
    studio.choose(0.28, 0.5)
    studio.page.locator(".region.on [aria-expanded]").click()
    for slider, value in (("Importance", "0.5"), ("Outline", "1.5"), ("'Text until'", "0.3"), ("'Text from'", "0.6")):
        studio.page.locator(f".region.on input[aria-label^={slider}]").fill(value)
    studio.page.get_by_text("More settings").click()
    studio.page.select_option("#scheduler", "ddim")
    studio.page.fill("#strength", "0.5")
    studio.page.fill("#steps", "3")
    index = studio.state()["labels"][int(0.5 * len(studio.state()["labels"])), int(0.28 * len(studio.state()["labels"]))]
    studio.generate()
    recipe = studio.page.evaluate("import('/static/result.js').then(({ view }) => view.current.used)")
    assert (recipe["scheduler"], recipe["strength"], recipe["steps"]) == ("ddim", 0.5, 3)
    region = recipe["regions"][index]
    assert (region["importance"], region["outline"]) == (0.5, 1.5)
    assert (region["start"], region["end"]) == (0.6, 0.7), "the end moves on with the start"


def test_label_map_opens_again(studio, tmp_path):
    """Regions saved as a label map are those of the drawing on which it is opened."""
    studio.two_shapes()
    studio.generate()
    labels, file = studio.state()["labels"], _save(studio, "labels", tmp_path)
    studio.blank()
    studio.page.set_input_files("#file", file)
    until(lambda: len(studio.state()["regions"]) == 3, "regions of the label map")
    assert np.array_equal(studio.state()["labels"], labels)


def test_trained_run_paints_the_words(demo_studio):
    """The circle is red, the star blue, then green by Redo selected: medians of the regions' pixels."""
    demo_studio.two_shapes()
    demo_studio.write(0.28, 0.5, "red")
    demo_studio.write(0.71, 0.5, "blue")
    demo_studio.page.fill("#caption", "a white background")
    first = demo_studio.generate()
    assert (_strongest(demo_studio, first, 0.28), _strongest(demo_studio, first, 0.71)) == ("red", "blue")
    demo_studio.write(0.71, 0.5, "green")
    second = demo_studio.generate("Control+Shift+Enter")
    assert (_strongest(demo_studio, second, 0.28), _strongest(demo_studio, second, 0.71)) == ("red", "green")


def _strongest(studio: StudioPage, picture: np.ndarray, x: float) -> str:
    """Name the largest channel of the median colour of the region at (x, 0.5)."""
    labels = studio.state()["labels"]
    height, width = labels.shape
    inside = labels == labels[height // 2, int(x * width)]
    return ("red", "green", "blue")[int(np.median(picture[inside], axis=0).argmax())]
