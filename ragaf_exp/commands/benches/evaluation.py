"""Benchmarks of the evaluation: Frechet distance of large sets, and sketch fidelity."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from ragaf_exp.commands.benches.timing import medians, row

IMAGES, FEATURES = 10_000, 2048
SIDE, COUNT = 256, 64


def frechet_distance(images: int = IMAGES, features: int = FEATURES) -> list[dict[str, Any]]:
    """Seconds from features to the distance, without and with its interval, on all cores.

    Reference: covariances by numpy, and the eigenvalues of their product, as in torchmetrics.
    """
    from eval.metrics.distances import frechet, moments
    from eval.metrics.influence import frechet_interval

    rng = np.random.default_rng(0)
    sets = [rng.standard_normal((images, features), np.float32) + np.float32(shift) for shift in (0, 0.1)]
    distance, with_interval, reference = (ms / 1000 for ms in medians([
        lambda: frechet(*moments(sets[0]), *moments(sets[1])), lambda: frechet_interval(*sets),
        lambda: _by_eigenvalues(*sets),
    ], turns=1))  # fmt: skip
    what = f"{images:,} x {features:,} features; reference: numpy's covariances, eigenvalues of their product"
    return [row("frechet/distance", distance, reference, "s", what),
            row("frechet/distance_with_interval", with_interval, reference, "s", what)]  # fmt: skip


def _by_eigenvalues(first: np.ndarray, second: np.ndarray) -> float:
    (mean1, cov1), (mean2, cov2) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (first, second))
    both = np.sqrt(np.linalg.eigvals(cov1 @ cov2).astype(complex)).real.sum()
    return float(np.square(mean1 - mean2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * both)


def sketch_fidelity() -> list[dict[str, Any]]:
    """Images per second with all metrics and their chance levels, on all cores.

    Reference: only precision and recall, of scikit-image's skeleton of the sketch and its Canny edges of the grey image,
    with SciPy's distance transforms.
    """
    from eval.edges import ColourCanny, Extracted
    from eval.metrics.sketch_fidelity import sketch_fidelity_set
    from ragaf_exp.commands.benches.cache import PHOTOS, photo
    from ragaf_exp.data.sources.scenes import Scenes
    from ragaf_exp.sketch.canny import Canny

    scenes = Scenes(size=SIDE).split("test")
    items = [scenes[i] for i in range(COUNT)]
    photos = [np.roll(photo(name, SIDE).image, 9 * i, 1) for i in range(COUNT // len(PHOTOS)) for name in PHOTOS]
    canny, rows = Canny(), []
    for name, sketches, images, reader in (
        ("scenes", [item.drawing for item in items], [item.image for item in items], ColourCanny()),
        ("photos", [canny(image, None) for image in photos], photos, Extracted(canny)),
    ):
        ours, reference = medians([
            lambda s=sketches, i=images, r=reader: sketch_fidelity_set(s, i, r),
            lambda s=sketches, i=images: [_by_libraries(*pair) for pair in zip(s, i, strict=True)],
        ], turns=5)  # fmt: skip
        what = f"{SIDE}x{SIDE}, {name}, {reader.name}, all metrics and chance; reference: two metrics by scikit-image"
        rows.append(row(f"sketch_fidelity/{name}", *(1000 * COUNT / ms for ms in (ours, reference)), "images/s", what))
    return rows


def _by_libraries(sketch: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    from scipy.ndimage import distance_transform_edt
    from skimage.feature import canny
    from skimage.morphology import skeletonize

    strokes = skeletonize(sketch > 0.5)
    edges = canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) / 255, sigma=1.4)
    limit = 0.0075 * np.hypot(*sketch.shape)
    to_strokes, to_edges = (distance_transform_edt(~curve) for curve in (strokes, edges))
    return float((to_strokes[edges] <= limit).mean()), float((to_edges[strokes] <= limit).mean())
