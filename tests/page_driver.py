"""Drives the studio's page in Debian's Chromium: strokes, regions, texts and pixels as a person has them."""

from __future__ import annotations

import base64
import io
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

PATIENCE = 120.0  # s, on a loaded machine
OFFLINE = "net::ERR_INTERNET_DISCONNECTED"  # what the browser reports of each request without a network
Points = Sequence[tuple[float, float]]  # shares of the drawing's width and height


def circle(x: float, y: float, radius: float, part: float = 1.0) -> Points:
    """Return points of a circle.

    Args:
        x: Centre, share of the width.
        y: Centre, share of the height.
        radius: Share of the side.
        part: Share of the circle in (0, 1]; less than 1 leaves it open.
    """
    angles = [2 * math.pi * part * i / 24 for i in range(25)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def star(x: float, y: float, radius: float) -> Points:
    """Return points of a star with five tips.

    Args:
        x: Centre, share of the width.
        y: Centre, share of the height.
        radius: Share of the side.
    """
    radii = [radius * (1 if i % 2 == 0 else 0.45) for i in range(11)]
    return [(x + r * math.sin(i * math.pi / 5), y - r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)]


def until(ready: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait for a condition; the page's policy refuses Playwright's own wait_for_function.

    Args:
        ready: Returns something true once the condition holds.
        what: Name of the condition, for the message.
        seconds: Longest wait.

    Returns:
        The value of `ready`.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := ready():
            return value
        time.sleep(0.03)
    pytest.fail(f"no {what} within {seconds:.0f} s")


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; skips the test where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: apt-get install chromium fonts-dejavu-core")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class StudioPage:
    """One tab with the studio.

    Args:
        browser: Playwright's browser.
        link: The studio's link with its token.
        options: Of Playwright's new_context, such as the size of the window.
    """

    def __init__(self, browser: Any, link: str, **options: Any):
        self.link = link
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.was_offline = False
        self.open(link)

    def open(self, link: str) -> None:
        """Open a tab of the same browser profile."""
        self.page = self.context.new_page()
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(link)

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Cut the browser off the network; its own reports of failed requests do not count as errors."""
        self.was_offline = True
        self.context.set_offline(True)
        yield
        self.context.set_offline(False)

    @property
    def status(self) -> str:
        """The page's status line."""
        return self.page.locator("#status").inner_text()

    def painted(self) -> None:
        """Wait for a finished picture."""
        until(lambda: self.status.startswith("Done"), "finished picture")

    def first_picture(self) -> None:
        """Wait for the first example, painted."""
        self.painted()
        until(lambda: self.page.locator("#view img").count(), "picture on the page")

    def blank(self) -> None:
        """Clear the drawing."""
        self.page.click("[data-act=trash]")
        self.regions(1)

    def box(self) -> dict[str, float]:
        """The drawing on the screen."""
        box = self.page.locator("#ink").bounding_box()
        assert box is not None
        return box

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point of the drawing in pixels of the screen."""
        box = self.box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def stroke(self, points: Points, tool: str = "pen") -> None:
        """Draw with the mouse."""
        self.page.click(f"[data-tool={tool}]")
        self.page.locator("#ink").scroll_into_view_if_needed()
        screen = [self.at(*point) for point in points]
        mouse = self.page.mouse
        mouse.move(*screen[0])
        mouse.down()
        for point in screen[1:]:
            mouse.move(*point)
        mouse.up()

    def choose(self, x: float, y: float, add: bool = False) -> None:
        """Click a region.

        Args:
            x: Share of the width.
            y: Share of the height.
            add: Add it to the selection, with Shift.
        """
        self.page.click("[data-tool=select]")
        self.page.locator("#ink").scroll_into_view_if_needed()
        if add:
            self.page.keyboard.down("Shift")
        self.page.mouse.click(*self.at(x, y))
        if add:
            self.page.keyboard.up("Shift")

    def state(self) -> dict[str, Any]:
        """The document: regions, strokes, caption, labels (H,W), selected ids."""
        script = """import('/static/state.js').then(({ doc, selected }) => ({
            regions: doc.regions, strokes: doc.strokes, caption: doc.caption, seed: doc.seed, mode: doc.mode,
            labels: doc.labels && Array.from(doc.labels), fresh: doc.of === doc.strokes, selected: [...selected] }))"""
        state = self.page.evaluate(script)
        about = self.page.evaluate("import('/static/api.js').then(({ about }) => [about.height, about.width])")
        state["labels"] = np.array(state["labels"] or [], np.int16).reshape(about if state["labels"] else (0, 0))
        return state

    def regions(self, count: int) -> list[dict[str, Any]]:
        """Wait for this number of regions of the drawing as it is."""
        until(lambda: (state := self.state())["fresh"] and len(state["regions"]) == count, f"{count} regions")
        return self.state()["regions"]

    def prompts(self) -> dict[int, str]:
        """Text of each region by id."""
        return {region["id"]: region["prompt"] for region in self.state()["regions"]}

    def region_at(self, x: float, y: float) -> dict[str, Any]:
        """The region at a point."""
        state = self.state()
        height, width = state["labels"].shape
        return state["regions"][state["labels"][int(y * height), int(x * width)]]

    def draw(self, *strokes: Points) -> None:
        """Add strokes at once, without the mouse."""
        drawn = [{"points": [[*p, 0.5] for p in points], "width": 0.016, "erase": False} for points in strokes]
        script = "drawn => import('/static/state.js').then(s => s.update({ strokes: [...s.doc.strokes, ...drawn] }))"
        self.page.evaluate(script, drawn)

    def two_shapes(self) -> None:
        """Draw a circle on the left and a star on the right."""
        self.blank()
        self.draw(circle(0.28, 0.5, 0.17), star(0.71, 0.5, 0.21))
        self.regions(3)

    def write(self, x: float, y: float, text: str) -> None:
        """Click a region and type its text.

        Args:
            x: Share of the width.
            y: Share of the height.
            text: Replaces the text that it has.
        """
        self.choose(x, y)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def generate(self, keys: str = "Control+Enter") -> np.ndarray:
        """Generate by a shortcut, and wait for the picture."""
        before = self.page.locator("#history button").count()
        self.page.keyboard.press(keys)
        until(lambda: self.page.locator("#history button").count() > before or before == 50, "picture in the history")
        self.painted()
        return self.pixels()

    def pixels(self) -> np.ndarray:
        """(H,W,3) uint8, the picture of the result."""
        script = "import('/static/result.js').then(({ view }) => view.current.image)"
        data = base64.b64decode(self.page.evaluate(script).split(",")[1])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def shown(self, canvas: str) -> np.ndarray:
        """(H,W,4) uint8, a canvas of the drawing: under, ink or over."""
        data = self.page.evaluate(f"document.getElementById('{canvas}').toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGBA"))

    def close(self) -> None:
        """Close the tab, and check that all requests went to the studio and no error was reported."""
        self.context.close()
        foreign = [url for url in self.requests if not url.startswith((self.link.split("#")[0], "data:", "blob:"))]
        assert not foreign, foreign
        # a report can arrive long after its request
        errors = [error for error in self.errors if not (self.was_offline and OFFLINE in error)]
        assert not errors, errors
