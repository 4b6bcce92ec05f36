"""Sketch fidelity against answers that can be worked out by hand."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
from extractor_weights import save_random
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d
from skimage import data

from eval.edges import ColourCanny, Extracted, edge_curve, reader_of
from eval.metrics.curves import curve_of, stroke_curve, tolerance_px
from eval.metrics.sketch_fidelity import compare, sketch_fidelity, sketch_fidelity_set
from eval.metrics.soft_edges import ms_ssim, pyramid
from eval.registry import SKETCH, in_group
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.images import fit_image, read_image
from ragaf_exp.data.sources.openmoji import OpenMoji
from ragaf_exp.data.sources.scenes import Scenes
from ragaf_exp.sketch import Canny, DoG, Drawn, Scharr, XDoG

OWN = (Canny(), DoG(), Scharr(), XDoG())


def square(size: int = 64, at: int = 16, side: int = 32, width: int = 1) -> np.ndarray:
    """Outline of a square as a sketch."""
    sketch = np.zeros((size, size), np.float32)
    cv2.rectangle(sketch, (at, at), (at + side - 1, at + side - 1), 1.0, width)
    return sketch


def painted(size: int = 64, at: int = 16, side: int = 32) -> np.ndarray:
    """A filled red square on white paper."""
    image = np.full((size, size, 3), (240, 240, 230), np.uint8)
    image[at : at + side, at : at + side] = (220, 40, 40)
    return image


def mean(fidelities: Sequence, field: str) -> float:
    return float(np.mean([getattr(f, field) for f in fidelities]))


# --- boundary precision, recall, F1, Chamfer


@pytest.mark.parametrize("size", [64, 256])
def test_a_painted_square_follows_its_outline(size):
    fidelity = sketch_fidelity(square(size, size // 4, size // 2), painted(size, size // 4, size // 2))
    assert fidelity.f1 == pytest.approx(1.0)
    assert fidelity.chamfer < 1.0 / size
    assert fidelity.ms_ssim > 0.8  # the outline lies half a pixel from the paint's border


def test_shift_beyond_the_tolerance_loses_the_sides_it_leaves():
    """Shifted right by 8 px, top and bottom still overlap by 24 of 32 px; the other sides are lost."""
    fidelity = sketch_fidelity(square(), painted(at=16)[:, np.r_[56:64, 0:56]])
    side, overlap = 32, 24
    expected = 2 * overlap / (4 * side - 4)
    assert fidelity.recall == pytest.approx(expected, abs=0.05)
    assert fidelity.precision == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(("size", "shift"), [(64, 1), (64, 2), (256, 2), (256, 3), (256, 20), (512, 5), (512, 6)])
def test_f1_of_a_shifted_square(size, shift):
    """Outlines of one square, one `shift` px further right. Within the tolerance (1, 2.7 and 5.4 px) nothing is lost;
    beyond it the upright sides are, which is half, and the ends of top and bottom: counted here pixel by pixel.
    """
    side, at, tolerance = size // 2, size // 4, tolerance_px((size, size))
    first = square(size, at, side).astype(bool)
    second = np.roll(first, shift, 1)
    fidelity = compare(curve_of(first), curve_of(second))
    a, b = (np.argwhere(m).astype(np.float64) for m in (first, second))
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1)
    expected = (apart <= tolerance).mean()
    assert fidelity.recall == fidelity.precision == pytest.approx(expected) and fidelity.f1 == pytest.approx(expected)
    assert fidelity.chamfer == pytest.approx(apart.mean() / (size * 2**0.5))
    assert expected == 1.0 if shift <= tolerance else 0.4 < expected < 0.55


def test_f1_falls_and_chamfer_grows_with_the_shift():
    fidelities = [sketch_fidelity(square(at=16 + s), painted()) for s in (0, 2, 5, 10)]
    assert fidelities[0].f1 > 0.95 and all(a.f1 >= b.f1 for a, b in zip(fidelities, fidelities[1:], strict=False))
    assert all(a.chamfer < b.chamfer for a, b in zip(fidelities, fidelities[1:], strict=False))
    assert all(a.ms_ssim >= b.ms_ssim for a, b in zip(fidelities, fidelities[1:], strict=False))
    assert fidelities[0].ms_ssim > 0.8 and fidelities[-1].ms_ssim < 0.1


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(11, 60), width=st.integers(11, 60), share=st.floats(0, 0.2))
@settings(max_examples=60, deadline=None)
def test_sides_may_be_exchanged(seed, height, width, share):
    """What is precision from one side is recall from the other, and everything stays in its range."""
    rng = np.random.default_rng(seed)
    a, b = (curve_of(rng.random((height, width)) < share) for _ in range(2))
    one, other = compare(a, b), compare(b, a)
    assert one.precision == other.recall and one.recall == other.precision and one.f1 == other.f1
    assert one.chamfer == pytest.approx(other.chamfer) and one.ms_ssim == pytest.approx(other.ms_ssim)
    assert all(0.0 <= one.values()[name] <= 1.0 for name in in_group(SKETCH))
    assert compare(a, a).f1 == 1.0 and compare(a, a).chamfer == 0.0
    assert compare(a, a).ms_ssim == pytest.approx(1.0, abs=1e-6)


def test_an_edge_of_colour_alone_is_an_edge():
    """Two colours of one lightness (L = 50 in CIELAB) have no edge in grey."""
    lab = np.full((64, 64, 3), (50.0, -40.0, 20.0), np.float32)
    lab[16:48, 16:48] = (50.0, 40.0, -20.0)
    image = np.rint(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255).astype(np.uint8)
    assert sketch_fidelity(square(), image).f1 > 0.95


def test_faint_texture_has_no_edges():
    noise = np.random.default_rng(0).normal(0, 3, (128, 128, 1))
    image = np.clip(np.full((128, 128, 3), 160) + noise, 0, 255).astype(np.uint8)
    assert not edge_curve(image).mask.any()


def test_empty_curves():
    blank, paper = np.zeros((32, 32), np.float32), np.full((32, 32, 3), 200, np.uint8)
    both = sketch_fidelity(blank, paper)
    assert (both.precision, both.recall, both.f1, both.chamfer, both.ms_ssim) == (1.0, 1.0, 1.0, 0.0, 1.0)
    for one in (sketch_fidelity(blank, painted(32, 8, 16)), sketch_fidelity(square(32, 8, 16), paper)):
        assert (one.precision, one.recall, one.f1, one.chamfer) == (0.0, 0.0, 0.0, 1.0)
        assert one.ms_ssim < 0.7


def test_tolerance_is_a_share_of_the_diagonal_but_at_least_a_pixel():
    assert tolerance_px((64, 64)) == 1.0
    assert tolerance_px((256, 256)) == pytest.approx(0.0075 * 256 * 2**0.5)
    assert sketch_fidelity(square(), painted()).tolerance == 1.0


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="uint8"):
        edge_curve(painted().astype(np.float32))
    with pytest.raises(ValueError, match="uint8"):
        Extracted(Canny()).edges(painted()[..., 0])
    with pytest.raises(ValueError, match="outside"):
        sketch_fidelity(square() * 255, painted())
    with pytest.raises(ValueError, match="NaN"):
        sketch_fidelity(square() * np.float32("nan"), painted())
    with pytest.raises(ValueError, match="differ in size"):
        sketch_fidelity(square(32, 8, 8), painted())
    with pytest.raises(ValueError, match="item 1: sketch has values outside"):
        sketch_fidelity_set([square(), square() * 2], [painted()] * 2)


def test_a_wide_stroke_is_a_border_or_a_line():
    """11 px at a tolerance of 2.7: an image may change colour in the stroke's middle, or show the stroke itself."""
    sketch = square(256, 64, 128, 11)
    line = np.where(sketch[..., None] > 0, np.uint8(20), np.uint8(245)).repeat(3, 2)
    for image in (painted(256, 64, 128), line):
        fidelity = sketch_fidelity(sketch, image)
        assert fidelity.f1 > 0.95 and fidelity.ms_ssim > 0.9
    offset = painted(256, 64, 128)[:, np.r_[251:256, 0:251]]  # both at once is neither: half of it lies at a side
    assert 0.4 < sketch_fidelity(sketch, offset).f1 < 0.8
    assert ColourCanny().strokes(square(256, 64, 128, 3)).sides is None  # its sides lie within the tolerance
    assert ColourCanny().strokes(np.ones((64, 64), np.float32)).sides is None  # ink everywhere has no side
    assert stroke_curve(sketch).sides is None


# --- multi-scale SSIM of soft edges


def by_the_paper(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2003, written down again without OpenCV."""
    at = np.arange(-5, 6)
    window = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    weights, result = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333), 1.0
    for scale, weight in enumerate(weights):
        m1, m2, s11, s22, s12 = (convolve2d(x, window, mode="valid") for x in (a, b, a * a, b * b, a * b))
        term = (2 * (s12 - m1 * m2) + 0.03**2) / (s11 - m1**2 + s22 - m2**2 + 0.03**2)
        if scale == 4:
            term *= (2 * m1 * m2 + 0.01**2) / (m1**2 + m2**2 + 0.01**2)
        result *= max(term.mean(), 0) ** weight
        h, w = (side // 2 for side in a.shape)
        a, b = (x[: 2 * h, : 2 * w].reshape(h, 2, w, 2).mean((1, 3)) for x in (a, b))
    return result


@pytest.mark.parametrize("shape", [(176, 200), (256, 256), (193, 181)])
def test_ms_ssim_is_the_papers_and_torchmetrics(shape):
    rng = np.random.default_rng(0)
    a = cv2.GaussianBlur(rng.random(shape, np.float32), (0, 0), 2)
    b = np.clip(a + rng.normal(0, 0.05, shape), 0, 1).astype(np.float32)
    value = ms_ssim(pyramid(a), pyramid(b))
    assert value == pytest.approx(by_the_paper(a.astype(np.float64), b.astype(np.float64)), abs=1e-5)
    peer = pytest.importorskip("torchmetrics.functional.image")
    pair = (torch.from_numpy(x)[None, None] for x in (a, b))
    wanted = peer.multiscale_structural_similarity_index_measure(*pair, data_range=1.0, normalize="relu")
    assert value == pytest.approx(float(wanted), abs=1e-3)  # which has a mirrored border at the coarsest scale


def test_ms_ssim_of_small_and_unlike_maps():
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    assert ms_ssim(pyramid(ramp), pyramid(ramp)) == pytest.approx(1.0)
    assert ms_ssim(pyramid(ramp), pyramid(1 - ramp)) == 0.0  # anticorrelated
    assert len(pyramid(ramp)) == 3 and len(pyramid(ramp[:11, :11])) == 1
    with pytest.raises(ValueError, match="window"):
        pyramid(ramp[:10])
    with pytest.raises(ValueError, match="differ in size"):
        ms_ssim(pyramid(ramp), pyramid(ramp[:48]))


def test_the_width_of_a_drawings_strokes_counts_for_nothing():
    thin, wide = (ColourCanny().strokes(square(128, 32, 64, width)) for width in (1, 5))
    assert compare(thin, wide).f1 > 0.99 and compare(thin, wide).ms_ssim > 0.97  # a corner's skeleton is rounder


def test_tones_count_where_both_sides_have_them():
    soft = cv2.GaussianBlur(square(128, 32, 64, 3), (0, 0), 1.0)
    strong, faint = stroke_curve(soft / soft.max(), toned=True), stroke_curve(soft / soft.max() * 0.6, toned=True)
    assert compare(strong, faint).f1 == 1.0 and compare(strong, faint).ms_ssim < 0.95
    assert stroke_curve(square(), toned=True).tone is None  # of 0 and 1 only: no tones, but where it is


# --- who reads the edges


@pytest.mark.parametrize("extractor", OWN, ids=lambda e: type(e).__name__)
def test_an_extractor_reads_its_own_sketch_back(extractor, photo):
    """With the very extractor that made the sketch, the photo keeps it exactly; another photo does not."""
    reader, sketch = reader_of(extractor), extractor(photo, None)
    assert reader.name == type(extractor).__name__.lower()
    own, other = sketch_fidelity(sketch, photo, reader), sketch_fidelity(sketch, photo[:, ::-1], reader)
    assert own.f1 == 1.0 and own.chamfer == 0.0 and own.ms_ssim == pytest.approx(1.0, abs=1e-6)
    assert other.f1 < 0.6 and other.ms_ssim < 0.5
    assert sketch_fidelity(sketch, photo).f1 < 1.0  # with the reader for drawings


@pytest.fixture
def photo() -> np.ndarray:
    return cv2.resize(data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)


def test_drawings_have_their_own_reader(tmp_path, photo):
    for extractor in (None, Drawn(), Drawn(thin=True)):
        assert reader_of(extractor).name == "canny_lab"
    reader = reader_of(Drawn(), drawings="pidinet", weights=str(save_random("pidinet", tmp_path)), device="cpu")
    fidelity = sketch_fidelity(square(256, 64, 128), photo, reader)
    assert reader.name == "pidinet" and 0 <= fidelity.f1 <= 1
    assert reader.edges(photo).tone is None
    assert reader_of(Canny(), drawings="pidinet").name == "canny"
    with pytest.raises(UserError, match=r"eval.edges=hed: must be one of canny, pidinet"):
        reader_of(None, drawings="hed")


# --- sets, and chance


def test_the_shuffled_figure_is_chance():
    sketches = [square(at=4, side=20), square(at=36, side=20), square(at=20, side=30)]
    images = [painted(at=4, side=20), painted(at=36, side=20), painted(at=20, side=30)]
    own, other = sketch_fidelity_set(sketches, images)
    assert min(f.f1 for f in own) > 0.95
    assert max(f.f1 for f in other) < 0.4
    assert sketch_fidelity_set(sketches[:1], images[:1]) == (own[:1], [])
    assert sketch_fidelity_set([], []) == ([], [])


@pytest.mark.parametrize("count", [2, 3, 6, 7])
def test_every_item_borrows_another_items_sketch(count):
    scenes = Scenes().split("test")
    items = [scenes[i] for i in range(count)]
    sketches, images, done = [i.drawing for i in items], [i.image for i in items], []
    own, other = sketch_fidelity_set(sketches, images, done=done.append)
    assert own == [sketch_fidelity(*pair) for pair in zip(sketches, images, strict=True)]
    half = count // 2
    lender = [i + half if i < half else i - half if i < 2 * half else 0 for i in range(count)]
    assert other == [sketch_fidelity(sketches[lender[i]], images[i]) for i in range(count)]
    assert sum(done) == count


def test_sketches_of_one_photo_do_not_lend_to_each_other():
    """Neighbours are alike in a data set with several sketches of a photo: they are no chance level."""
    places = [4, 4, 12, 12, 28, 28, 40, 40]
    _, other = sketch_fidelity_set([square(at=p, side=20) for p in places], [painted(at=p, side=20) for p in places])
    assert max(f.f1 for f in other) < 0.5


def test_sketches_of_other_sizes_are_lent_resized():
    sketches, images = [square(), square(96, 8, 32)], [painted(), painted(96, 8, 32)]
    own, other = sketch_fidelity_set(sketches, images)
    assert min(f.f1 for f in own) > 0.95 and max(f.f1 for f in other) < 0.5


def test_sets_are_read_once_and_a_little_at_a_time():
    reads: Counter = Counter()

    class Lazy(Sequence):
        def __init__(self, name, make, count=40):
            self.name, self.make, self.count = name, make, count

        def __len__(self):
            return self.count

        def __getitem__(self, index):
            reads[self.name, index] += 1
            return self.make()

    sketch_fidelity_set(Lazy("sketch", square), Lazy("image", painted))
    assert len(reads) == 80 and set(reads.values()) == {1}


@pytest.mark.parametrize("size", [64, 128, 256])
def test_ceiling_on_ground_truth(size):
    """The drawing of a scene and the scene itself: what a perfect model can reach."""
    test = Scenes(size=size).split("test")
    items = [test[i] for i in range(40)]
    own, other = sketch_fidelity_set([i.drawing for i in items], [i.image for i in items])
    assert mean(own, "f1") >= 0.96 and mean(own, "ms_ssim") >= 0.9
    assert mean(other, "f1") <= 0.25 and mean(other, "ms_ssim") <= 0.25


def test_real_photos_and_sketches_of_them(shared_data):
    """Extracted sketches follow their photo; people's drawings, which are nowhere exact, still do more than another's."""
    paths = sorted((shared_data / "sketchy/photo").rglob("*.jpg"))[::15]
    photos = [fit_image(read_image(path), 256) for path in paths]
    for extractor in OWN:
        own, other = sketch_fidelity_set([extractor(p, None) for p in photos], photos, reader_of(extractor))
        assert mean(own, "f1") == 1.0 and mean(other, "f1") < 0.4
        assert mean(own, "ms_ssim") > 0.999 and mean(other, "ms_ssim") < 0.2


@pytest.mark.parametrize("size", [64, 128, 256])
def test_real_line_art(shared_data, size):
    """OpenMoji's black drawings and colour pictures, which show the drawing's lines as lines: all but the same edges."""
    items = OpenMoji(root=str(shared_data / "openmoji72"), size=size).split("test")
    items = [items[i] for i in range(30)]
    own, other = sketch_fidelity_set([i.drawing for i in items], [i.image for i in items])
    assert mean(own, "f1") > 0.85 and mean(other, "f1") < 0.45


def test_speed():
    """100 images a second at 256x256 on two cores are 20 ms of one core's time for each: everything, chance included."""
    rng = np.random.default_rng(0)
    images = [cv2.resize(rng.integers(0, 256, (16, 16, 3), np.uint8), (256, 256)) for _ in range(40)]
    sketches = [Canny()(image, None) for image in images]
    times = []
    for _ in range(3):
        start = time.process_time()
        sketch_fidelity_set(sketches, images)
        times.append(time.process_time() - start)
    assert min(times) / len(images) < 0.020
