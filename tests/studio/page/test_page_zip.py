"""A session as a zip archive: every picture of the history with its recipe and its drawing."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_driver import StudioPage
from PIL import Image

from ragaf_exp.inference.recipes import ImageRecipe, SketchRecipe, parse_recipe, recipe_in

pytestmark = pytest.mark.long


def test_a_session_is_saved_whole(browser: Any, studio_link: str, tmp_path: Path) -> None:
    studio = StudioPage(browser, studio_link)
    studio.first_picture()
    studio.two_shapes()
    second = studio.generate()
    studio.page.click("[data-mode=edit]")
    studio.stroke([(0.2, 0.2), (0.3, 0.3)])
    studio.page.fill("#steps", "2")
    third = studio.generate()
    with studio.page.expect_download() as saved:
        studio.page.click("#share summary")
        studio.page.click("[data-save=zip]")
    saved.value.save_as(tmp_path / "session.zip")
    studio.close()
    with zipfile.ZipFile(tmp_path / "session.zip") as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(files) == sorted([
        *(f"00{n}{end}" for n in (1, 2) for end in (".png", "-recipe.json", "-drawing.png")),
        "003.png", "003-recipe.json", "003-given.png", "003-mask.png",
    ])  # fmt: skip
    pixels = {n: np.asarray(Image.open(io.BytesIO(files[f"00{n}.png"])).convert("RGB")) for n in (1, 2, 3)}
    assert np.array_equal(pixels[2], second) and np.array_equal(pixels[3], third)
    for n, kind in ((1, SketchRecipe), (2, SketchRecipe), (3, ImageRecipe)):
        recipe = parse_recipe(json.loads(files[f"00{n}-recipe.json"]))
        assert isinstance(recipe, kind) and recipe_in(files[f"00{n}.png"], "a.png")["seed"] == recipe.settings.seed
        if isinstance(recipe, SketchRecipe):
            drawn = np.asarray(Image.open(io.BytesIO(files[f"00{n}-drawing.png"])).convert("RGBA"))[..., 3]
            assert np.array_equal(drawn, recipe.sketch)
        else:
            assert recipe.mask == files["003-mask.png"]
