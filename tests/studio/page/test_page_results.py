"""The studio's page after a picture: evolution, attention, comparison, seeds, history, runs, mask brush."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from page_driver import StudioPage, circle, until
from PIL import Image

pytestmark = pytest.mark.long


@pytest.fixture
def studio(browser, studio_link):
    page = StudioPage(browser, studio_link)
    page.first_picture()
    yield page
    page.close()


def test_evolution_shows_every_step(studio):
    """The slider goes through all steps of both stages; the last is the result."""
    frames = studio.page.evaluate("import('/static/result.js').then(({ view }) => view.current.frames.map(f => f.stage))")
    assert frames == sorted(frames) and set(frames) == {1, 2}
    slider = studio.page.locator("#frame")
    assert slider.get_attribute("max") == str(len(frames) - 1)
    last = studio.page.locator("#view img").get_attribute("src")
    slider.fill("0")
    assert studio.page.locator("#view img").get_attribute("src") != last
    assert "stage 1, step 1" in (slider.get_attribute("aria-valuetext") or "")
    slider.fill(str(len(frames) - 1))
    assert studio.page.locator("#view img").get_attribute("src") == last
    studio.page.click("[data-tab=first]")
    assert (studio.page.locator("#view img").get_attribute("alt") or "").startswith("Stage 1")


def test_play_and_pause(studio):
    """Play moves through the steps from the first, stops at the last; nothing plays unasked."""
    assert studio.page.locator("#play").get_attribute("aria-label") == "Play the evolution"
    studio.page.locator("#frame").fill("0")
    studio.page.click("#play")
    until(lambda: studio.page.locator("#frame").input_value() not in ("0",), "second step")
    until(lambda: studio.page.locator("#play").get_attribute("aria-label") == "Play the evolution", "end of the evolution")


def test_word_shows_its_map(studio):
    """A word's map lies over the drawing, differs from another word's, and a second click takes it away."""
    words = studio.page.locator("#attention th button")
    plain = studio.shown("under")
    words.filter(has_text="red").click()
    until(lambda: not np.array_equal(studio.shown("under"), plain), "map")
    red = studio.shown("under")
    words.filter(has_text="blue").click()
    until(lambda: not np.array_equal(studio.shown("under"), red), "map of the other word")
    height, width = red.shape[:2]
    circle_, star_ = (slice(0, height), slice(0, width // 2)), (slice(0, height), slice(width // 2, width))
    blue = studio.shown("under")
    darker = lambda picture, part: float(picture[part][..., 1].mean())  # noqa: E731  # more attention, less green
    assert darker(red, circle_) - darker(blue, circle_) < darker(red, star_) - darker(blue, star_)
    words.filter(has_text="blue").click()
    until(lambda: np.array_equal(studio.shown("under"), plain), "drawing without a map")


def test_fusion_has_a_line_and_a_row_for_every_region(studio):
    """The chart and its table have all regions at all timesteps."""
    regions = len(studio.state()["regions"])
    assert studio.page.locator("#fusion polyline:not(.halo)").count() == regions
    rows = studio.page.locator("#shares tbody tr")
    assert rows.count() > 1 and rows.first.locator("td").count() == regions


def test_four_seeds_and_comparison(studio):
    """Four pictures of successive seeds; a click chooses one; the divider uncovers the other picture."""
    studio.page.fill("#seed", "7")
    studio.page.click("#four")
    until(lambda: studio.page.locator("#view .four img").count() == 4, "four pictures")
    until(lambda: studio.page.locator("#four").is_enabled(), "end of the job")
    pictures = studio.page.locator("#view .four button")
    assert [pictures.nth(i).inner_text() for i in range(4)] == ["7", "8", "9", "10"]
    assert studio.page.locator("#history button").count() == 5
    pictures.nth(1).click()
    until(lambda: "Seed 8" in studio.page.locator("#view").inner_text(), "chosen picture")
    studio.page.click("[data-tab=compare]")
    images = studio.page.locator("#view img")
    until(lambda: images.count() == 2, "two pictures")
    assert images.nth(0).get_attribute("src") != images.nth(1).get_attribute("src")
    for place in ("20", "80"):
        studio.page.locator("#cut").fill(place)
        clip = images.nth(1).evaluate("element => element.style.clipPath")
        assert f"{100 - int(place)}%" in clip
    studio.page.locator("#cut").press("ArrowRight")
    assert studio.page.locator("#cut").input_value() == "81"


def test_history_restores_drawing_and_picture(studio):
    """A click on an older picture restores its drawing; undo brings back the drawing before."""
    first, pixels = studio.state(), studio.pixels()
    studio.two_shapes()
    studio.generate()
    assert not np.array_equal(studio.state()["labels"], first["labels"])
    later = studio.state()
    studio.page.locator("#history button").nth(1).click()
    until(lambda: studio.state()["regions"] == first["regions"], "older drawing")
    assert np.array_equal(studio.pixels(), pixels)
    studio.page.click("[data-act=back]")
    assert studio.state()["regions"] == later["regions"]


def test_locked_region_keeps_its_pixels(studio):
    """A locked region's pixels are equal to the bit after the whole is sampled with another seed."""
    before, region = studio.pixels(), studio.region_at(0.3, 0.5)
    studio.choose(0.3, 0.5)
    studio.page.click("[data-tool=select]")
    studio.page.keyboard.press("l")
    assert studio.region_at(0.3, 0.5)["locked"]
    studio.page.fill("#seed", "99")
    after = studio.generate()
    state = studio.state()
    inside = state["labels"] == [r["id"] for r in state["regions"]].index(region["id"])
    assert np.array_equal(before[inside], after[inside]) and not np.array_equal(before, after)


def test_photo_becomes_a_drawing(studio, tmp_path):
    """A photo of another shape keeps its proportions, and an extractor turns it into lines."""
    image = np.full((120, 240, 3), 250, np.uint8)
    yy, xx = np.mgrid[:120, :240]
    image[(yy - 60) ** 2 + (xx - 120) ** 2 < 40**2] = (200, 30, 30)
    Image.fromarray(image).save(tmp_path / "photo.png")
    studio.page.set_input_files("#file", tmp_path / "photo.png")
    studio.page.select_option("#extractor", "canny")
    regions = studio.regions(2)
    labels = studio.state()["labels"] == next(i for i, region in enumerate(regions) if not region["background"])
    height, width = np.ptp(np.nonzero(labels), axis=1)
    assert abs(height - width) <= 4


def test_examples_each_open_with_texts(studio):
    """All eight examples open with a text, and say what they teach."""
    buttons = studio.page.locator("#examples button")
    assert buttons.count() == 8
    for button in buttons.all():
        teaches = button.get_attribute("title")
        button.click()
        until(lambda teaches=teaches: studio.status == teaches, "example")
        assert any(studio.prompts().values()) or studio.state()["caption"], teaches


def test_mask_brush(studio):
    """A painted area of the finished picture is sampled again; the rest stays to the bit."""
    before = studio.pixels()
    studio.page.click("[data-mode=edit]")
    studio.page.locator("#go").scroll_into_view_if_needed()
    studio.page.click("#go")
    until(lambda: "brush" in studio.status, "request for a mask")
    studio.stroke([(0.2, 0.2), (0.3, 0.3)])
    studio.page.fill("#steps", "2")
    after = studio.generate()
    assert after.shape == before.shape
    mask = picture_of(studio.page.evaluate("import('/static/result.js').then(({ view }) => view.current.recipe.mask)"))
    assert 0 < (mask > 127).mean() < 0.2
    assert np.array_equal(before[mask == 0], after[mask == 0]) and not np.array_equal(before, after)
    studio.page.click("[data-mode=sketch]")
    assert studio.state()["regions"]


def picture_of(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("L"))


def test_runs_are_listed_with_their_figures(studio):
    """The gallery shows the run with pictures, curves and figures, and returns to the studio with the work kept."""
    studio.two_shapes()
    studio.page.click("[data-page=gallery]")
    until(lambda: studio.page.locator(".runs article").count(), "list of runs")
    studio.page.locator(".runs article button").first.click()
    until(lambda: studio.page.locator("[data-view=gallery] .chart").count(), "curves")
    assert studio.page.locator("[data-view=gallery] figure img").count()
    assert studio.page.locator("[data-view=gallery] .figures dt").count()
    studio.page.click("[data-page=studio]")
    assert len(studio.state()["strokes"]) == 2 and studio.page.locator("#ink").is_visible()


def test_two_tabs_are_served_in_turn(studio):
    """A second tab's picture waits for the first tab's, and both are done."""
    first = studio.page
    studio.open(studio.link)
    until(lambda: studio.page.locator("#go").is_enabled(), "second tab")
    first.fill("#steps", "60")
    first.click("#go")
    studio.page.click("#go")
    studio.painted()
    until(lambda: first.locator("#status").inner_text().startswith("Done"), "first tab's picture")


def test_circle_is_a_region_while_drawing(studio):
    """Regions appear without a click after a stroke ends."""
    studio.blank()
    studio.stroke(circle(0.5, 0.5, 0.2))
    studio.regions(2)
