"""Sketch extractors on NumPy and OpenCV: range, sign, input types, known pictures, symmetries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.ndimage import label as components

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.images import read_drawing
from ragaf_exp.sketch import Canny, DoG, Drawn, Scharr, XDoG

OF_IMAGES = [Canny(), Canny(low=0.1, high=0.3, sigma=0), XDoG(), XDoG(epsilon=0.6, phi=100), DoG(), DoG(sigma=3, full=1),
             Scharr(), Scharr(sigma=0, full=1)]  # fmt: skip
EXTRACTORS = [*OF_IMAGES, Drawn(), Drawn(binarise=True), Drawn(thin=True)]
SOFT = [XDoG(), XDoG(epsilon=0.3), DoG(), Scharr()]
SIZES = st.integers(1, 20)


def square(inside, outside, size=32) -> np.ndarray:
    """A colour square from 8 to 24 on a ground, uint8 RGB."""
    image = np.full((size, size, 3), outside, np.uint8)
    image[8:24, 8:24] = inside
    return image


@pytest.mark.parametrize("extractor", EXTRACTORS)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 20), width=st.integers(1, 20))
@settings(max_examples=15, deadline=None)
def test_every_extractor_stays_in_range(extractor, seed, height, width):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    before, drawing = image.copy(), rng.random((height, width), np.float32)
    sketch = extractor(image, drawing)
    assert sketch.dtype == np.float32 and sketch.shape == (height, width)
    assert sketch.min() >= 0 and sketch.max() <= 1
    np.testing.assert_array_equal(extractor(image, drawing), sketch)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("extractor", OF_IMAGES)
def test_input_types_agree(extractor):
    image = square((200, 30, 30), (90, 120, 250))
    sketch = extractor(image, None)
    deep = [extractor(image.astype(np.uint16) * 257, None), extractor(image.astype(np.int64), None)]
    floats = [extractor((image / 255).astype(kind), None) for kind in (np.float32, np.float64)]
    opaque = extractor(np.dstack([image, np.full((32, 32), 255, np.uint8)]), None)
    for other in (*deep, *floats, opaque):
        np.testing.assert_allclose(sketch, other, atol=2e-3)


@pytest.mark.parametrize("extractor", OF_IMAGES)
def test_grey_pictures_have_any_shape(extractor):
    grey = square(20, 240)[..., 0]
    alpha = np.full_like(grey, 255)
    sketch = extractor(np.repeat(grey[..., None], 3, 2), None)
    assert sketch.max() > 0.5
    for other in (grey, grey[..., None], np.dstack([grey, alpha])):
        np.testing.assert_allclose(extractor(other, None), sketch, atol=1e-3)
    black = square(0, 255)
    np.testing.assert_array_equal(extractor(black > 128, None), extractor(black, None), "bool is black and white")


@pytest.mark.parametrize("extractor", OF_IMAGES)
def test_what_is_transparent_is_paper(extractor):
    hidden = np.dstack([square((200, 30, 30), (1, 2, 3)), square(255, 0)[..., 0]])
    np.testing.assert_allclose(extractor(hidden, None), extractor(square((200, 30, 30), 255), None), atol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (0, 4, 3), (4, 4, 5), (2, 4, 4, 3), ()])
@pytest.mark.parametrize("extractor", [Canny(), XDoG(), DoG(), Scharr()])
def test_other_inputs_than_pictures_are_refused(extractor, shape):
    with pytest.raises(UserError, match=r"a picture of shape \(.*must be \(H,W\)"):
        extractor(np.zeros(shape), None)


@pytest.mark.parametrize("extractor", OF_IMAGES)
def test_no_number_at_all_is_survived(extractor):
    image = np.full((9, 9, 3), np.nan)
    image[2:5, 3:6] = np.inf
    image[7] = -np.inf
    sketch = extractor(image, None)
    assert np.isfinite(sketch).all() and sketch.min() >= 0 and sketch.max() <= 1


@pytest.mark.parametrize("extractor", SOFT)
@given(seed=st.integers(0, 10**6), height=SIZES, width=SIZES)
@settings(max_examples=15, deadline=None)
def test_flipped_and_turned_pictures_have_flipped_and_turned_sketches(extractor, seed, height, width):
    """Canny is no such: where two gradients tie, it thins from the left."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    sketch = extractor(image, None)
    for change in (np.fliplr, np.flipud, np.rot90, lambda x: x.swapaxes(0, 1)):
        np.testing.assert_allclose(extractor(change(image), None), change(sketch), atol=2e-3)


@pytest.mark.parametrize("extractor", [DoG(), Scharr(), Canny(), XDoG()])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_plain_picture_has_no_stroke(extractor, grey):
    assert extractor(np.full((32, 32, 3), grey, np.uint8), None).max() < 1e-5


def test_canny_outlines_a_square_once():
    sketch = Canny()(square(20, 240), None)
    assert set(np.unique(sketch)) == {0, 1}
    rows, columns = np.nonzero(sketch)
    away = np.maximum(abs(rows - 15.5), abs(columns - 15.5))
    assert away.min() > 6 and away.max() < 9
    assert components(sketch == 0)[1] == 2, "the outline is closed"


def test_canny_sees_edges_between_colours_of_equal_brightness():
    image = square((255, 0, 0), (0, 130, 0))  # both have luma 76
    assert components(Canny()(image, None) == 0)[1] == 2
    assert Scharr()(image, None)[15].max() == 1
    assert DoG()(image, None)[15].max() < 0.1, "luma alone hardly sees it: the case is a real one"


def test_canny_ignores_faint_noise_and_obeys_thresholds():
    noise = np.random.default_rng(0).normal(0.5, 0.004, (64, 64, 3))
    assert Canny()(noise, None).sum() == 0
    step = square(140, 120) / 255  # a step of 0.08
    assert Canny(high=0.05, sigma=0)(step, None).sum() > 40
    assert Canny(high=0.1, sigma=0)(step, None).sum() == 0


def test_xdog_equation():
    image = square((180, 90, 40), (210, 200, 250))
    grey = image @ np.array([0.299, 0.587, 0.114]) / 255
    fine, coarse = (gaussian_filter(grey, s, mode="reflect", truncate=5) for s in (1.0, 1.6))
    d = 11 * fine - 10 * coarse
    paper = np.where(d >= 0.4, 1, 1 + np.tanh(5 * (d - 0.4)))
    np.testing.assert_allclose(XDoG(1.0, 1.6, 10, 0.4, 5)(image, None), 1 - paper, atol=0.02)


def test_xdog_inks_the_dark_side():
    sketch = XDoG()(square(60, 230), None)
    assert sketch[8:24, 8].min() > 0.9 and sketch[:, :5].max() == 0


def test_xdog_fills_dark_areas_up_to_epsilon():
    image = square(13, 230)  # 0.05
    assert XDoG(phi=100)(image, None)[15, 15] == 0, "edges alone"
    assert XDoG(phi=100, epsilon=0.1)(image, None)[15, 15] > 0.99
    assert XDoG(phi=100, epsilon=0.1)(image, None)[2, 2] == 0


@pytest.mark.parametrize("inverted", [False, True])
def test_drawn_gets_its_polarity_from_the_file(inverted, tmp_path):
    ring = np.full((40, 40), 255, np.uint8)
    ring[8:32, 8:32] = 0
    ring[11:29, 11:29] = 255
    Image.fromarray(255 - ring if inverted else ring).save(tmp_path / "ring.png")
    np.testing.assert_array_equal(Drawn()(None, read_drawing(tmp_path / "ring.png")), ring == 0)


def test_drawn_passes_drawings_on():
    drawing = np.array([[0, 0.3, 1], [0.7, 0.5, 0]], np.float32)
    image = np.zeros((2, 3, 3), np.uint8)
    np.testing.assert_array_equal(Drawn()(image, drawing), drawing)
    np.testing.assert_array_equal(Drawn(binarise=True)(image, drawing), drawing > 0.5)
    scan = np.uint8([[0, 255, 255], [0, 0, 0]])
    np.testing.assert_array_equal(Drawn()(image, scan), scan / 255)


def test_drawn_thins_to_one_pixel():
    drawing = np.zeros((32, 32), np.float32)
    drawing[4:28, 4:28] = 1
    drawing[9:23, 9:23] = 0
    thin = Drawn(thin=True)(None, drawing)
    assert thin.max() == 1 and thin.sum() < 90 and not (thin > drawing).any()
    assert components(thin == 0)[1] == 2, "the ring stays closed"


def test_drawn_without_drawing_names_the_remedy():
    with pytest.raises(UserError, match=r"sketch=drawn.*data\.drawings.*sketch=canny"):
        Drawn()(np.zeros((4, 4, 3), np.uint8), None)


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: Canny(low=-0.1), "sketch.low"),
        (lambda: Canny(high=100), "sketch.high"),
        (lambda: Canny(low=0.5, high=0.2), "sketch.low"),
        (lambda: Canny(sigma=-1), "sketch.sigma"),
        (lambda: Canny(sigma=101), "sketch.sigma"),
        (lambda: Canny(high=math.nan), "sketch.high"),
        (lambda: DoG(sigma=0.4), "sketch.sigma"),
        (lambda: DoG(k=1), "sketch.k"),
        (lambda: DoG(k=17), "sketch.k"),
        (lambda: DoG(full=0), "sketch.full"),
        (lambda: Scharr(sigma=-1), "sketch.sigma"),
        (lambda: Scharr(full=1.1), "sketch.full"),
        (lambda: Scharr(full=math.nan), "sketch.full"),
        (lambda: XDoG(epsilon=-0.1), "sketch.epsilon"),
        (lambda: XDoG(phi=math.inf), "sketch.phi"),
        (lambda: XDoG(sigma=0), "sketch.sigma"),
        (lambda: XDoG(k=1), "sketch.k"),
        (lambda: XDoG(p=-1), "sketch.p"),
        (lambda: XDoG(phi=0), "sketch.phi"),
    ],
)
def test_bad_settings_name_their_key(build, key):
    with pytest.raises(UserError, match=f"^{key}="):
        build()
