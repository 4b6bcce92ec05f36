"""Recipes: round trips through JSON and PNG, and content from strangers."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ragaf_exp.core.edits import RegionEdit
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.uploads import png
from ragaf_exp.inference.recipes import ImageRecipe, Settings, SketchRecipe, parse_recipe, recipe_in, with_recipe
from ragaf_exp.inference.recipes.write import to_json

RUN = {"name": "demo/0123", "checksum": "abc"}
SIZE = (6, 9)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
EDITS = st.builds(RegionEdit, TEXTS, st.floats(0, 2), st.floats(0, 2), st.booleans())
SETTINGS = st.builds(Settings, st.integers(0, 2**53 - 1), st.none() | st.integers(1, 200), st.none() | st.floats(0, 30),
                     st.none() | st.just("ddim"), st.none() | st.floats(0.05, 1))  # fmt: skip
STROKES = st.lists(st.fixed_dictionaries({
    "points": st.lists(st.lists(st.floats(-1, 2), min_size=2, max_size=3), max_size=5), "width": st.floats(0, 1),
    "erase": st.booleans(),
}), max_size=3)  # fmt: skip


@st.composite
def recipes(draw: st.DrawFn) -> SketchRecipe:
    labels = draw(arrays(np.int16, SIZE, elements=st.integers(-1, 63)))
    count = int(labels.max()) + 1
    keep = draw(st.none() | arrays(np.uint8, (*SIZE, 3)))
    redo = draw(st.frozensets(st.integers(0, count - 1))) if keep is not None and count else frozenset()
    return SketchRecipe(draw(arrays(np.uint8, SIZE)), labels, draw(TEXTS), tuple(draw(st.lists(EDITS, max_size=count))),
                        draw(SETTINGS), keep, redo, strokes=draw(st.none() | STROKES))  # fmt: skip


def same(first: SketchRecipe, second: SketchRecipe) -> bool:
    pairs = ((getattr(first, key), getattr(second, key)) for key in SketchRecipe.__dataclass_fields__)
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


@settings(max_examples=60, deadline=None)
@given(recipes(), st.booleans())
def test_a_recipe_survives_json_and_png(recipe, packed):
    content = to_json(recipe, RUN, packed)
    assert same(parse_recipe(json.loads(json.dumps(content))), recipe)
    picture = np.zeros((4, 4, 3), np.uint8)
    file = with_recipe(picture, content)
    assert same(parse_recipe(recipe_in(file, "a.png")), recipe)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), picture)
    assert recipe_in(file, "a.png")["run"] == RUN


def test_a_recipe_of_an_image_survives_too():
    picture, mask = png(np.zeros((4, 5, 3), np.uint8)), png(np.full((4, 5), 255, np.uint8))
    recipe = ImageRecipe(picture, mask, "a red star", None, picture, "insert", Settings(3, 10), 2, 0.25, 3.0)
    assert parse_recipe(recipe_in(with_recipe(np.zeros((4, 5, 4), np.uint8), to_json(recipe, RUN)), "a.png")) == recipe


def test_a_recipe_that_is_too_long_for_a_png_goes_without_its_images():
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    recipe = SketchRecipe(noise[..., 0], np.zeros((600, 600), np.int16), keep=noise, redo=frozenset({0}))
    read = recipe_in(with_recipe(noise, to_json(recipe, RUN, packed=True)), "a.png")
    assert read["keep"] is None and np.array_equal(parse_recipe(read).sketch, recipe.sketch)


def test_files_of_a_large_recipe_stay_small():
    recipe = SketchRecipe(np.zeros((512, 512), np.uint8), np.zeros((512, 512), np.int16))
    assert len(json.dumps(to_json(recipe, RUN, packed=True))) < 20_000


@pytest.mark.parametrize("content", [
    b"", b"{}", b"null", b"\x89PNG\r\n\x1a\n", png(np.zeros((4, 4), np.uint8)), b"{" * 9999,
])  # fmt: skip
def test_files_without_a_recipe_are_refused_in_one_line(content):
    with pytest.raises(UserError) as refusal:
        parse_recipe(recipe_in(content, "a.png"))
    assert "\n" not in str(refusal.value)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(
    st.sampled_from(["schema", "kind", "width", "height", "sketch", "labels", "caption", "regions", "seed", "keep", "redo",
                     "strokes", "image", "mask"]),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
                 lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6),
), st.booleans())  # fmt: skip
def test_anything_else_is_refused_in_one_line(changes, edits_image):
    base = {"schema": 1, "kind": "edit", "image": png_url()} if edits_image else {
        "schema": 1, "width": 2, "height": 2, "sketch": "AAAAAA==", "labels": "AAAAAAAAAAA="}  # fmt: skip
    try:
        parse_recipe({**base, **changes})
    except UserError as error:
        assert str(error).startswith("recipe: ") and "\n" not in str(error)


def png_url() -> str:
    import base64

    return base64.b64encode(png(np.zeros((2, 2, 3), np.uint8))).decode()


def test_the_route_reads_recipes_of_the_studio(client, finish, recipe):
    import base64

    done = finish({**recipe, "strokes": [{"points": [[0.1, 0.2], [0.3, 0.4, 0.5]], "width": 0.02}]})[-1]
    answer = client.post("/api/recipe", content=base64.b64decode(done["image"].partition(",")[2]))
    read = answer.json()["recipe"]
    assert answer.status_code == 200 and read == done["recipe"]
    assert finish(read)[-1]["image"] == done["image"]
    assert client.post("/api/recipe", content=json.dumps(read)).json()["recipe"] == read
    refused = client.post("/api/recipe", content=png(np.zeros((4, 4, 3), np.uint8)))
    assert refused.status_code == 400 and "no recipe" in refused.json()["error"]
