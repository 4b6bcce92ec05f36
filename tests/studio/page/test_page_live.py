"""The gallery in the page while a run trains: new points, states and figures appear without a click."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from growing_runs import log, state, study_of
from page_driver import StudioPage, until
from studio_worker import loaded, served

pytestmark = pytest.mark.long


@pytest.fixture
def live(browser: Any, finished: Path, tmp_path: Path) -> Iterator[tuple[StudioPage, Path]]:
    """The page's gallery of a study, and the folder of its run that is being trained."""
    growing = study_of(finished, tmp_path / "runs")
    with loaded(finished, tmp_path / "runs") as worker, served(worker) as link:
        studio = StudioPage(browser, link)
        studio.first_picture()
        studio.page.click("[data-page=gallery]")
        until(lambda: studio.page.locator(".runs article").count() == 3, "two runs and their study")
        yield studio, growing
        studio.close()


def count(studio: StudioPage) -> int:
    """The number of points of all curves."""
    lines = studio.page.locator("[data-view=gallery] polyline")
    points = lines.evaluate_all("all => all.map(line => line.getAttribute('points'))")
    return sum(len(each.split()) for each in points)


def test_a_study_shows_new_points_and_the_end_of_training(live: tuple[StudioPage, Path]) -> None:
    studio, growing = live
    studio.page.get_by_role("button", name="Open study", exact=True).click()
    until(lambda: studio.page.locator("[data-view=gallery] .chart").count(), "curves")
    assert studio.page.locator(".badge.running").count() == 1 and studio.page.locator("figure img").count() == 2
    before = count(studio)
    member = studio.page.locator("tbody button").nth(1)
    member.focus()
    log(growing, 12, validation={"binding_accuracy": 0.5})
    until(lambda: count(studio) == before + 1, "new point")
    assert member.evaluate("element => element === document.activeElement")  # keyboard users keep their position
    shutil.copy(growing.parent / "0123456789ab" / "metrics.json", growing)
    state(growing, state="done", trained=True, step=9)
    until(lambda: not studio.page.locator(".badge.running").count(), "end of training")
    rows = [row.inner_text().split("\t")[1:] for row in studio.page.locator("tbody tr").all()]
    assert rows[0] == rows[1]  # the figures of a copy


def test_a_run_shows_new_points_and_grids(live: tuple[StudioPage, Path]) -> None:
    studio, growing = live
    studio.page.locator("article:has(.running) button").click()
    until(lambda: studio.page.locator("[data-view=gallery] .chart").count(), "curves")
    before, pictures = count(studio), studio.page.locator("figure img").count()
    log(growing, 12, loss=0.25)
    shutil.copy(next((growing / "samples").glob("refine-*.png")), growing / "samples" / "refine-000012.png")
    state(growing, step=12)
    until(lambda: count(studio) == before + 1, "new point")
    assert studio.page.locator("figure img").count() == pictures + 1
    assert json.loads((growing / "status.json").read_text())["step"] == 12
