"""The studio's page by keyboard alone, by touch, in the dark, on a phone, for a screen reader; its size and its policy."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from page_driver import StudioPage, until
from starlette.testclient import TestClient

from ragaf_exp.studio.app import STATIC, Server
from ragaf_exp.studio.guard import access_for
from ragaf_exp.studio.jobs import Jobs
from ragaf_exp.studio.worker import Worker

pytestmark = pytest.mark.long
BUDGET = 60 * 1024  # bytes of the page, as sent
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture
def open_studio(browser, studio_link):
    """open_studio(options of the window) -> a page with the first picture."""
    pages: list[StudioPage] = []

    def call(**options: object) -> StudioPage:
        pages.append(StudioPage(browser, studio_link, **options))
        pages[-1].first_picture()
        return pages[-1]

    yield call
    for page in pages:
        page.close()


def focused(studio: StudioPage) -> str:
    return studio.page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.id")


def test_keyboard_alone(open_studio):
    """Two keys from the top to a region's text; a shape by numbers, a text, a picture, without a pointer."""
    studio = open_studio()
    keyboard = studio.page.keyboard
    keyboard.press("Tab")
    keyboard.press("Enter")
    assert focused(studio).startswith("Text of region")
    keyboard.press("ArrowDown")
    assert focused(studio) == "Text of region 1"
    keyboard.press("Control+a")
    keyboard.type("green")
    before = studio.pixels()
    assert studio.prompts()[1] == "green"
    assert not np.array_equal(studio.generate("Control+Shift+Enter"), before)
    studio.page.locator("details.more summary").first.focus()
    keyboard.press("Enter")
    for _ in range(6):
        keyboard.press("Tab")
    keyboard.press("Enter")
    until(lambda: len(studio.state()["strokes"]) == 3, "shape by numbers")


def test_one_tab_stop_for_each_group(open_studio):
    """The toolbar, the examples and the list of regions are one stop each; arrows move within them."""
    studio = open_studio()
    stops = "all => all.filter(element => element.tabIndex === 0).length"
    for group in ("#tools button", "#examples button", "#history button", "#regions .line input"):
        assert studio.page.locator(group).evaluate_all(stops) == 1, group
    studio.page.locator("#tools button").first.focus()
    studio.page.keyboard.press("ArrowRight")
    assert focused(studio) == "Eraser"


def test_typing_triggers_no_shortcut(open_studio):
    """Letters in a text field, typed after a click on a region, are text and nothing else."""
    studio = open_studio()
    studio.write(0.3, 0.5, "bekvpml")
    assert "bekvpml" in studio.prompts().values()
    assert studio.page.locator("[data-tool=select]").get_attribute("aria-pressed") == "true"
    assert not any(region["locked"] for region in studio.state()["regions"])


def test_shortcuts_can_be_turned_off(open_studio):
    """The ? panel lists the shortcuts and turns single keys off (WCAG 2.1.4)."""
    studio = open_studio()
    studio.page.locator("#ink").focus()
    studio.page.keyboard.press("e")
    assert studio.page.locator("[data-tool=eraser]").get_attribute("aria-pressed") == "true"
    studio.page.keyboard.press("?")
    assert studio.page.locator("#keys kbd").count() > 15
    studio.page.uncheck("#single")
    studio.page.locator("#keys button").click()
    studio.page.keyboard.press("b")
    assert studio.page.locator("[data-tool=eraser]").get_attribute("aria-pressed") == "true"


def test_phone_by_touch(open_studio):
    """On 390 px nothing scrolls sideways, targets are 44 px, and a tap on a region reaches its text."""
    studio = open_studio(**PHONE)
    assert studio.page.evaluate("document.documentElement.scrollWidth") == 390
    sizes = studio.page.locator("#tools button:visible, .actions button, .region button:visible").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect()).map(box => Math.min(box.width, box.height))"
    )
    assert min(sizes) >= 44
    studio.page.tap("[data-tool=select]")
    studio.page.locator("#ink").scroll_into_view_if_needed()
    studio.page.touchscreen.tap(*studio.at(0.3, 0.5))
    until(lambda: focused(studio).startswith("Text of region"), "focus in the text")
    studio.page.keyboard.press("Control+a")
    studio.page.keyboard.type("green")
    studio.page.locator("#go").tap()
    until(lambda: studio.page.locator("#history button").count() == 2, "picture")
    assert "green" in studio.prompts().values()


def test_dark_scheme(open_studio):
    """The page follows the system's scheme; the paper stays white."""
    dark, light = open_studio(color_scheme="dark"), open_studio(color_scheme="light")
    shade = "getComputedStyle(document.body).backgroundColor"
    values = [sum(map(int, re.findall(r"\d+", page.page.evaluate(shade))[:3])) for page in (dark, light)]
    assert values[0] < 150 < 600 < values[1]
    assert dark.page.evaluate("getComputedStyle(document.getElementById('stage')).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"])
def test_axe_has_no_violation(open_studio, options):
    """axe-core reports nothing, in the studio, its panels and the list of runs. $AXE is its file, from npm."""
    script = Path(os.environ.get("AXE", "node_modules/axe-core/axe.min.js"))
    if not script.is_file():
        pytest.skip("no axe-core: npm install axe-core, and give AXE=.../axe.min.js")
    studio = open_studio(**options)
    studio.page.locator("#regions [aria-expanded]").first.click()
    studio.page.evaluate(script.read_text())
    check(studio)
    studio.page.click("#help")
    check(studio)
    studio.page.locator("#keys button").click()
    studio.page.click("[data-page=gallery]")
    until(lambda: studio.page.locator(".runs").count(), "list of runs")
    check(studio)


def check(studio: StudioPage) -> None:
    violations = studio.page.evaluate("axe.run().then(result => result.violations)")
    assert not [(v["id"], [node["html"][:120] for node in v["nodes"]]) for v in violations]


def test_reduced_motion(open_studio):
    """With reduced motion no element has a transition; in any case nothing plays unasked."""
    studio = open_studio(reduced_motion="reduce")
    moving = "all => all.filter(e => parseFloat(getComputedStyle(e).transitionDuration) > 0).length"
    assert studio.page.locator("*").evaluate_all(moving) == 0
    assert studio.page.evaluate("document.getAnimations().length") == 0


def test_status_and_names_for_a_screen_reader(open_studio):
    """Steps and results are announced; every control has a name; the picture's text is made from the recipe."""
    studio = open_studio()
    status = studio.page.locator("#status")
    assert (status.get_attribute("role"), status.get_attribute("aria-live")) == ("status", "polite")
    alt = studio.page.locator("#view img").get_attribute("alt") or ""
    assert studio.state()["caption"] in alt and "region 1" in alt
    nameless = studio.page.locator("button:visible, input:visible, select:visible").evaluate_all(
        """all => all.filter(e => !(e.innerText || e.ariaLabel || e.labels?.length || e.querySelector('img')?.alt))
            .map(e => e.outerHTML)"""
    )
    assert not nameless


def test_zoom_keeps_points_under_the_pointer(open_studio):
    """After zooming in, a stroke lands where the pointer is."""
    studio = open_studio()
    studio.blank()
    studio.page.locator("#ink").scroll_into_view_if_needed()
    studio.page.mouse.move(*studio.at(0.25, 0.25))
    studio.page.keyboard.down("Control")
    studio.page.mouse.wheel(0, -240)
    studio.page.keyboard.up("Control")
    stage = studio.page.locator("#stage").bounding_box()
    assert until(lambda: (box := studio.box())["width"] > 1.5 * stage["width"] and box, "zoom")
    studio.page.click("[data-tool=pen]")
    x, y = stage["x"] + stage["width"] / 4, stage["y"] + stage["height"] / 4
    studio.page.mouse.move(x, y)
    studio.page.mouse.down()
    studio.page.mouse.move(x + 20, y)
    studio.page.mouse.up()
    assert studio.state()["strokes"][0]["points"][0][:2] == pytest.approx([0.25, 0.25], abs=0.01)


def test_page_is_small_and_has_no_inline_code():
    """All files together, as they are sent, are within the budget; the policy needs no exception."""
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    app = Server(Worker(Path("nowhere"), Jobs(1))).app(access_for("127.0.0.1", 7860, ""))
    client = TestClient(app, "http://127.0.0.1:7860")
    paths = ["/", *(f"/static/{path.relative_to(STATIC).as_posix()}" for path in files if path.name != "index.html")]
    answers = [client.get(path, headers={"accept-encoding": "gzip"}) for path in paths]
    assert {answer.headers["content-encoding"] for answer in answers} == {"gzip"}
    assert sum(int(answer.headers["content-length"]) for answer in answers) < BUDGET
    assert client.get("/", headers={"accept-encoding": "identity"}).text == answers[0].text
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"\son\w+=|style=|<script(?! type=\"module\" src)|https?://(?!www\.w3\.org)", html)
    unsafe = re.compile(r"(inner|outer|insertAdjacent)HTML|\beval\(|https?://(?!www\.w3\.org)")
    assert not [path.name for path in files if path.suffix == ".js" and unsafe.search(path.read_text())]
