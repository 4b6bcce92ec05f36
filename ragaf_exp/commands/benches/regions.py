"""Benchmarks: regions, graphs and soft masks, per image on one core."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from ragaf_exp.commands.benches.cache import PHOTOS, photo
from ragaf_exp.commands.benches.timing import medians, row

TURNS = 20
CROSS = cv2.getStructuringElement(cv2.MORPH_RECT, (3, 3))


def regions_graph() -> list[dict[str, Any]]:
    """Regions and hybrid graph with all features: four photos at 512x512 after Canny, and embedded scenes at 64x64.

    Reference: a lower bound, one 3x3 morphological closing and one cv2.connectedComponentsWithStats of the complement.
    """
    from ragaf_exp.config.build import build
    from ragaf_exp.config.compose import compose_config
    from ragaf_exp.sketch.canny import Canny

    scenes = build(compose_config([]).data, "data").split("test")
    extract = Canny()
    sketches = {f"512/{name}": extract(photo(name, 512).image, None) for name in PHOTOS}
    sketches |= {f"64/scene_{i}": scenes[i].drawing for i in range(4)}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return [_regions_graph(f"regions_graph_{name}", sketch) for name, sketch in sketches.items()]
    finally:
        cv2.setNumThreads(threads)


def _regions_graph(name: str, sketch: np.ndarray) -> dict[str, Any]:
    from ragaf_exp.graph.hybrid import Hybrid
    from ragaf_exp.regions.enclosed import Enclosed

    find, connect, stroke = Enclosed(), Hybrid(), (sketch > 0.5).astype(np.uint8)

    def lower_bound() -> object:
        closed = cv2.morphologyEx(stroke, cv2.MORPH_CLOSE, CROSS)
        return cv2.connectedComponentsWithStats(1 - closed, connectivity=4)

    ours, reference = medians([lambda: connect(find(sketch)), lower_bound], TURNS)
    return row(name, ours, reference, "ms", "regions and hybrid graph, all features; reference: a lower bound")


def soft_masks() -> list[dict[str, Any]]:
    """Soft masks of a batch at four resolutions, compared with a training step of stage 2."""
    import torch

    from ragaf_exp.commands.benches.training import stage_steps
    from ragaf_exp.regions.soft_masks import soft_masks

    steps, batch = stage_steps()
    labels = torch.randint(-1, 64, (16, 64, 64), generator=torch.Generator().manual_seed(0))
    sizes = [(side, side) for side in (64, 32, 16, 8)]
    masks, step = medians([lambda: [soft_masks(labels, 64, size) for size in sizes], steps[1]])
    what = f"16 images, 64 regions, 64x64 to 8x8; reference: a step of stage 2 at batch {batch}"
    return [row("soft_masks/four_resolutions", masks, step, "ms", what)]
