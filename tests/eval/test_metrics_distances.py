"""Frechet and kernel distance against formulas, other implementations, and the spread of repeated draws."""

from __future__ import annotations

import time
import warnings
from contextlib import suppress
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from eval.metrics.distances import frechet, kid, moments
from eval.metrics.influence import frechet_interval

PEERS = (("pytorch_fid.fid_score", "calculate_frechet_distance"), ("cleanfid.fid", "frechet_distance"))


def draw(count: int, dim: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Features like a network's: correlated, not negative, of falling variance."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(dim, dim)) * np.exp(-np.arange(dim) / (dim / 4))
    return (np.maximum(rng.normal(size=(count, dim)), 0) @ mix.T * scale / dim**0.5 + shift).astype(np.float32)


# --- moments


def test_moments_are_numpys_and_float64():
    features = draw(500, 20, 0) + 1000  # far from 0: what one pass in float32 would lose
    mean, cov = moments(features)
    np.testing.assert_allclose(mean, features.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-12)
    assert cov.dtype == np.float64


def test_moments_do_not_depend_on_the_pieces(monkeypatch):
    features = draw(300, 12, 0)
    whole = moments(features)
    monkeypatch.setattr("eval.metrics.distances.PIECE", 12 * 7)
    for one, other in zip(whole, moments(features), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


def test_moments_refuse_what_has_none():
    with pytest.raises(ValueError, match="at least 2"):
        moments(np.ones((1, 4)))
    with pytest.raises(ValueError, match="NaN"):
        moments(np.array([[0.0, 1.0], [np.nan, 2.0]]))
    with pytest.raises(ValueError, match="shape"):
        moments(np.ones(4))


# --- Frechet distance


@given(
    m1=st.floats(-100, 100), m2=st.floats(-100, 100), s1=st.floats(0, 50), s2=st.floats(0, 50)
)  # fmt: skip
def test_in_one_dimension_it_is_the_formula(m1, m2, s1, s2):
    """(m1 - m2)^2 + (s1 - s2)^2, with standard deviations s."""
    distance = frechet(np.array([m1]), np.array([[s1**2]]), np.array([m2]), np.array([[s2**2]]))
    assert distance == pytest.approx((m1 - m2) ** 2 + (s1 - s2) ** 2, rel=1e-6, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), dim=st.integers(1, 24), rank=st.integers(0, 24))
def test_commuting_gaussians_follow_the_formula_in_any_basis(seed, dim, rank):
    """Diagonal in one basis: |m1 - m2|^2 + sum (s1 - s2)^2; and with singular covariances too."""
    rng = np.random.default_rng(seed)
    s1, s2 = rng.uniform(0, 3, (2, dim))
    s1[min(rank, dim) :] = 0
    basis = ortho_group.rvs(dim, random_state=seed) if dim > 1 else np.eye(1)
    covs = [basis @ np.diag(s**2) @ basis.T for s in (s1, s2)]
    m1, m2 = rng.normal(size=(2, dim))
    expected = np.square(m1 - m2).sum() + np.square(s1 - s2).sum()
    assert frechet(m1, covs[0], m2, covs[1]) == pytest.approx(expected, rel=1e-6, abs=1e-5)
    assert frechet(m2, covs[1], m1, covs[0]) == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_two_by_two_by_hand():
    """tr (C1 C2)^1/2 of a 2x2 product is (tr P + 2 (det P)^1/2)^1/2."""
    first, second = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[4.0, -1.0], [-1.0, 1.0]])
    product = first @ second
    both = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    assert frechet(np.zeros(2), first, np.array([1.0, 2.0]), second) == pytest.approx(5 + 5 + 5 - 2 * both, rel=1e-12)


@pytest.mark.parametrize("count", [2, 40, 400])
def test_of_a_set_with_itself_it_is_0(count):
    features = draw(count, 64, 0, shift=5, scale=30)
    mean, cov = moments(features)
    assert frechet(mean, cov, mean, cov) <= 1e-6 * np.trace(cov)


def test_sets_without_spread_differ_by_their_means():
    zero_module = np.zeros((3, 3))
    assert frechet(np.zeros(3), zero_module, np.array([1.0, 2.0, 2.0]), zero_module) == pytest.approx(9)
    assert frechet(np.zeros(3), zero_module, np.zeros(3), np.eye(3)) == pytest.approx(3)


@pytest.mark.parametrize(("first", "second"), [(400, 300), (50, 300), (50, 40)], ids=["full", "one singular", "both"])
def test_it_agrees_with_peers_on_the_same_features(first, second):
    """torchmetrics, pytorch-fid and clean-fid, within 1e-3, also for fewer images than features."""
    sets = [*moments(draw(first, 96, 1)), *moments(draw(second, 96, 2, shift=0.05, scale=1.1))]
    ours = frechet(*sets)
    peers = list(of_peers(*sets))
    if not peers:
        pytest.skip("none of torchmetrics, pytorch-fid, clean-fid is installed")
    for name, theirs in peers:
        assert ours == pytest.approx(theirs, rel=1e-3), name


def of_peers(*sets: np.ndarray):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(ImportError):
            import torch
            from torchmetrics.image.fid import _compute_fid

            yield "torchmetrics", float(_compute_fid(*map(torch.from_numpy, sets)))
        for module, function in PEERS:
            with suppress(ImportError, TypeError):  # theirs passes SciPy an argument that its newest versions dropped
                yield module, getattr(import_module(module), function)(*sets)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m, c: (m[:2], c[:2, :2]), "dimensions"),
        (lambda m, c: (m, c[:2]), "must be"),
        (lambda m, c: (m * np.nan, c), "NaN"),
        (lambda m, c: (m, c + np.triu(np.ones((3, 3)), 1)), "symmetric"),
        (lambda m, c: (m, -c), "negative"),
    ],
)
def test_what_is_no_gaussian_is_refused(change, says):
    mean, cov = np.zeros(3), np.eye(3)
    with pytest.raises(ValueError, match=says):
        frechet(mean, cov, *change(mean, cov))


# --- its interval


@pytest.mark.long
def test_speed_with_its_interval():
    """The budget for 10,000 x 2,048 features is 15 s on two free cores: 30 s of processor time, everything included."""
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((10_000, 2048), np.float32) + shift for shift in (0, 0.1))
    start = time.process_time()
    interval = frechet_interval(first, second)
    assert time.process_time() - start < 30
    assert interval.low > 2048 * 0.1**2, "the means' share, to which the bias of 10,000 images adds"


def jackknifed(first: np.ndarray, second: np.ndarray) -> float:
    """Standard error by leaving every image out in turn, of one set and then of the other (Efron and Stein 1981)."""
    sets, variance = (first, second), 0.0
    for k, features in enumerate(sets):
        fixed = moments(sets[1 - k])
        left = [frechet(*moments(np.delete(features, i, 0)), *fixed) for i in range(len(features))]
        variance += np.var(left) * (len(left) - 1)
    return variance**0.5


@pytest.mark.parametrize(
    ("counts", "dim", "shift", "scale"),
    [((120, 90), 8, 0.3, 1.0), ((90, 120), 8, 0.0, 1.3), ((100, 100), 8, 0.0, 1.0), ((25, 150), 40, 0.2, 1.0),
     ((40, 30), 60, 0.2, 1.2)],
    ids=["shifted", "scaled", "alike", "one singular", "both singular"],
)  # fmt: skip
def test_the_interval_is_that_of_leaving_each_image_out(counts, dim, shift, scale):
    first, second = draw(counts[0], dim, 1), draw(counts[1], dim, 2, shift=shift, scale=scale)
    interval = frechet_interval(first, second)
    assert (interval.high - interval.value) / 1.96 == pytest.approx(jackknifed(first, second), rel=0.15)
    swapped = frechet_interval(second, first)
    assert swapped == pytest.approx(interval, rel=1e-6)


def test_the_interval_has_the_spread_of_repeated_draws():
    """Errors against the standard deviation over fresh images, and how many intervals hold the mean."""
    for counts, dim, shift in ((300, 300), 16, 0.2), ((60, 90), 120, 0.2):
        repeats = [frechet_interval(draw(counts[0], dim, 2 * s), draw(counts[1], dim, 2 * s + 1, shift)) for s in range(60)]
        values = [f.value for f in repeats]
        reach = np.median([f.high - f.value for f in repeats]) / 1.96
        assert 0.67 < reach / np.std(values) < 1.5, (counts, reach, np.std(values))
        assert np.mean([f.low <= np.mean(values) <= f.high for f in repeats]) >= 0.85


@pytest.mark.parametrize("counts", [(100, 90), (20, 90), (20, 15)], ids=["full", "one singular", "both"])
def test_the_interval_holds_the_distance_of_all_images(counts):
    first, second = draw(counts[0], 30, 0), draw(counts[1], 30, 1, shift=0.3)
    interval = frechet_interval(first, second)
    assert interval.value == pytest.approx(frechet(*moments(first), *moments(second)), rel=1e-9)
    assert 0 <= interval.low < interval.value < interval.high


def test_influences_do_not_depend_on_the_pieces(monkeypatch):
    first, second = draw(100, 12, 0), draw(90, 12, 1, shift=0.3)
    whole = frechet_interval(first, second)
    monkeypatch.setattr("eval.metrics.influence.PIECE", 12 * 7)
    assert frechet_interval(first, second) == pytest.approx(whole, rel=1e-9)


def test_a_sample_of_influences_says_the_same(monkeypatch):
    first, second = draw(3000, 12, 0), draw(2500, 12, 1, shift=0.3)
    whole = frechet_interval(first, second)
    monkeypatch.setattr("eval.metrics.influence.SAMPLE", 600)
    part = frechet_interval(first, second)
    assert part.value == whole.value and part != whole
    assert part.high - part.value == pytest.approx(whole.high - whole.value, rel=0.1)


def test_sets_without_spread_have_an_interval():
    flat, other = np.ones((6, 3), np.float32), draw(50, 3, 0)
    interval = frechet_interval(flat, other)
    assert interval == pytest.approx(frechet_interval(other, flat)) and interval.low < interval.value < interval.high
    assert interval.value == pytest.approx(frechet(*moments(flat), *moments(other)))
    assert frechet_interval(flat, 3 * flat) == pytest.approx((12, 12, 12)), "nothing varies"


def test_dead_features_change_nothing():
    """Unused units of a network make the covariance singular however many images there are."""
    first, second = draw(80, 6, 0), draw(70, 6, 1, shift=0.2)
    wide = [np.concatenate([x, np.zeros((len(x), 5), np.float32), x[:, :2]], 1) for x in (first, second)]
    plain = [np.concatenate([x, x[:, :2]], 1) for x in (first, second)]
    assert frechet_interval(*wide) == pytest.approx(frechet_interval(*plain), rel=1e-4)
    doubled = np.diag([2, 2, 1, 1, 1, 1]) ** 0.5  # a feature that is there twice counts as one that is longer
    assert frechet_interval(*plain) == pytest.approx(frechet_interval(first @ doubled, second @ doubled), rel=1e-4)


@pytest.mark.parametrize("function", [frechet_interval, kid])
def test_too_few_images_have_no_interval(function):
    with pytest.raises(ValueError, match="at least 4"):
        function(draw(3, 4, 0), draw(50, 4, 1))
    interval = function(draw(4, 4, 0), draw(4, 4, 1))
    assert np.isfinite(interval).all() and interval.low < interval.value < interval.high


# --- kernel distance


def mmd_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    kernel = lambda a, b: (float(a @ b) / len(a) + 1) ** 3  # noqa: E731
    m = len(x)
    same = sum(kernel(z[i], z[j]) for z in (x, y) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return same - 2 * sum(kernel(a, b) for a in x for b in y) / m**2


def test_a_subset_is_the_formula():
    """The estimate of one subset is the formula, summed by loops."""
    from eval.metrics.distances import _mmd

    x, y = draw(9, 5, 0).astype(np.float64), draw(9, 5, 1, shift=0.3).astype(np.float64)
    assert _mmd(x, y) == pytest.approx(mmd_by_loops(x, y), rel=1e-9)


def test_it_agrees_with_clean_fid():
    fid = pytest.importorskip("cleanfid.fid")
    first, second = draw(800, 32, 0), draw(900, 32, 1, shift=0.15)
    np.random.seed(0)
    theirs = fid.kernel_distance(first, second, num_subsets=200, max_subset_size=200)
    estimate = kid(first, second, subsets=200, subset_size=200)
    assert estimate.value == pytest.approx(theirs, rel=0.05)
    assert estimate.low < theirs < estimate.high


def test_of_a_set_with_itself_it_is_about_0():
    features = draw(1000, 32, 0)
    itself, other = kid(features, features, subset_size=200), kid(features, draw(1000, 32, 1, shift=0.1), subset_size=200)
    assert abs(itself.value) < 0.05 * other.value
    assert itself.low < 0 < itself.high and other.low > 0


def test_it_is_unbiased_over_splits():
    """Halves of one set: the mean over many splits is 0 within its error, at any size of a subset; FD's is not."""
    features = draw(400, 16, 0)
    far = kid(features[:200], features[200:] + 0.1).value
    for size in (10, 100):
        values, frechets = [], []
        for seed in range(60):
            order = np.random.default_rng(seed).permutation(400)
            halves = features[order[:200]], features[order[200:]]
            values.append(kid(*halves, subsets=10, subset_size=size, seed=seed).value)
            frechets.append(frechet(*moments(halves[0]), *moments(halves[1])))
        error = np.std(values) / len(values) ** 0.5
        assert abs(np.mean(values)) < max(3 * error, 0.02 * far)
        assert np.mean(frechets) > 10 * np.std(frechets) / len(frechets) ** 0.5


def test_the_interval_covers_the_distance_of_more_images():
    """The spread of subsets alone would shrink to nothing where every subset is nearly the whole set."""
    truth = kid(draw(6000, 16, 1000), draw(6000, 16, 1001, shift=0.1), subset_size=1000).value
    estimates = [kid(draw(200, 16, 2 * s), draw(200, 16, 2 * s + 1, shift=0.1), subsets=40, seed=s) for s in range(60)]
    assert np.mean([f.low <= truth <= f.high for f in estimates]) >= 0.85
    spread = np.std([f.value for f in estimates])
    assert 0.5 < np.median([(f.high - f.low) / 3.92 for f in estimates]) / spread < 2


def test_kid_refuses_what_it_cannot_measure():
    good = draw(20, 4, 0)
    with pytest.raises(ValueError, match="dimensions"):
        kid(good, draw(20, 5, 0))
    with pytest.raises(ValueError, match="at least 2"):
        kid(good, good, subsets=1)
    with pytest.raises(ValueError, match="NaN"):
        kid(good, good * np.nan)


def test_kid_draws_by_its_seed_alone():
    first, second = draw(60, 6, 0), draw(50, 6, 1)
    np.random.seed(1)
    one = kid(first, second, seed=3)
    np.random.seed(2)
    assert one == kid(first, second, seed=3) != kid(first, second, seed=4)
