"""The survey of drawings: figures of a folder, its picture, refused arguments."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from ragaf_exp.commands import region_survey


@pytest.fixture
def drawings(tmp_path):
    """A ring (2 regions, a figure), two rings in one another (3) and a blank sheet (1, none)."""
    folder = tmp_path / "drawings"
    folder.mkdir()
    for name, radii in (("blank", ()), ("ring", (40,)), ("rings", (50, 25))):
        sheet = np.full((128, 128), 255, np.uint8)
        for radius in radii:
            cv2.circle(sheet, (64, 64), radius, 0, 2)
        Image.fromarray(sheet).save(folder / f"{name}.png")
    return folder


@pytest.mark.long
def test_counts_and_figures(drawings):
    result, pictures = region_survey.survey_folder(drawings, 64, [])
    assert result.counts == [1, 2, 3] and result.objects == [False, True, True] and result.milliseconds > 0
    assert len(pictures) == 3 and pictures[0].shape == pictures[1].shape


@pytest.mark.long
def test_overrides_reach_the_regions(drawings):
    result, _ = region_survey.survey_folder(drawings, 64, ["regions.max_regions=2"])
    assert result.counts == [1, 2, 2]


def test_command_line(drawings, tmp_path, cli):
    out = tmp_path / "regions.png"
    status, printed, _ = cli(region_survey.main, f"drawings=[{drawings}]", "size=64", "graph=adjacency", f"out={out}")
    row = printed.splitlines()[1].split()
    assert status == 0 and row[:5] == [str(drawings), "3", "2", "1.1", "2.9"] and row[5] == "67%"
    with Image.open(out) as picture:
        assert picture.size == (6 * 256, 256)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "drawings="),
        (("drawings=[nowhere]",), "nowhere: no such folder"),
        (("drawings=[.]", "size=0"), "size=0"),
        (("drawings=[.]", "regions.gap=2"), "regions.gap=2"),
        (("drawings=[.]", "colour=red"), "colour=red"),
    ],
)
def test_unknown_and_invalid_arguments_are_refused(words, says, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(region_survey.main, *words, says=(says,))


def test_a_folder_without_pictures(tmp_path, refused):
    refused(region_survey.main, f"drawings=[{tmp_path}]", says=("no pictures",))
