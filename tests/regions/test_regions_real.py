"""Real drawings: every OpenMoji outline, hand-drawn Sketchy sketches and scribbles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawings import TURNS

from ragaf_exp.core.types import Regions
from ragaf_exp.data.images import fit_drawing, read_drawing
from ragaf_exp.graph import Containment, Hybrid
from ragaf_exp.regions import Enclosed
from ragaf_exp.regions.gaps import CLOSINGS

SETS = {  # folder, side, files at least, share of drawings with a figure (measured: 0.962, 0.825, 1)
    "openmoji": ("openmoji72/black", 72, 2120, 0.94),
    "sketchy": ("sketchy/sketch", 256, 360, 0.78),
    "scribbles": ("scribbles", 256, 5, 1.0),
}
FIGURE = 0.02  # share of the picture that a region takes at least to be called a figure


def read(folder: Path, side: int) -> list[np.ndarray]:
    return [fit_drawing(read_drawing(path), side, "pad") for path in sorted(folder.rglob("*.png"))]


@pytest.fixture(scope="module")
def sets(shared_data: Path) -> dict[str, list[np.ndarray]]:
    """The drawings of each set."""
    return {name: read(shared_data / folder, side) for name, (folder, side, *_) in SETS.items()}


def largest_figure(regions: Regions) -> float:
    """Share of the picture that the largest region other than the background takes."""
    areas = np.bincount(regions.labels[regions.labels >= 0], minlength=regions.count) / regions.labels.size
    return float(np.delete(areas, regions.background).max(initial=0))


def share_with_figure(drawings: list[np.ndarray], **options) -> float:
    """Share of drawings with a figure apart from the background."""
    finder = Enclosed(**options)
    return float(np.mean([largest_figure(finder(drawing)) >= FIGURE for drawing in drawings]))


@pytest.mark.parametrize("name", SETS)
def test_every_file_gives_sound_regions_and_graphs(name, sets):
    find, graphs = Enclosed(max_regions=64), (Hybrid(), Containment())
    assert len(sets[name]) >= SETS[name][2]
    for drawing in sets[name]:
        regions = find(drawing)
        assert regions.labels.shape == drawing.shape and regions.labels.min() >= 0
        areas = np.bincount(regions.labels.ravel())
        assert 1 <= regions.count == len(areas) <= 64 and (np.diff(areas) <= 0).all() and areas.min() > 0
        assert 0 <= regions.background < regions.count
        for child, (parent, depth) in enumerate(zip(regions.parent.tolist(), regions.depth.tolist(), strict=True)):
            assert parent != child and depth == (regions.depth[parent] + 1 if parent >= 0 else 0)
        for graph in (build(regions) for build in graphs):
            assert np.isfinite(graph.nodes).all() and np.isfinite(graph.edges).all()
            assert (graph.edge_mask == graph.edge_mask.T).all() and graph.edge_mask.diagonal().all()


@pytest.mark.parametrize("name", SETS)
def test_figures_are_separated_from_the_background(name, sets):
    share = share_with_figure(sets[name])
    assert share >= SETS[name][3], f"{share:.3f} of {name} have a figure"


@pytest.mark.parametrize("closing", CLOSINGS)
def test_closing_gaps_finds_figures_that_have_gaps(closing, sets):
    """Half of the sketches lose their figure through a gap; many of the rest show a part only, and have none."""
    closed, plain = (share_with_figure(sets["sketchy"], closing=closing, gap=gap) for gap in (0.03, 0.0))
    assert closed >= 0.75 and closed >= plain + 0.2, (closed, plain)


@pytest.mark.parametrize(("name", "low", "median", "high"), [("openmoji", 2, 3, 12), ("sketchy", 2, 4, 12)])
def test_numbers_of_regions(name, low, median, high, sets):
    find = Enclosed(max_regions=64)
    counts = [find(drawing).count for drawing in sets[name]]
    least, middle, most = np.percentile(counts, [5, 50, 95])
    assert least >= low and abs(middle - median) <= 1 and most <= high, "neither lost nor in splinters"


@pytest.mark.parametrize("name", SETS)
def test_turned_drawings_have_the_turned_regions_but_for_ties(name, sets):
    """Gaps are split between pixels that are equally deep in an order that a turn changes; it must not matter."""
    find, alike, apart = Enclosed(), [], []
    for drawing in sets[name][:: 1 + len(sets[name]) // 60]:
        one = find(drawing)
        for there, back in TURNS.values():
            two = find(there(drawing))
            pairs = one.labels.astype(int) * two.count + back(two.labels)
            cells = np.bincount(pairs.ravel(), minlength=one.count * two.count).reshape(one.count, two.count)
            alike.append(one.count == two.count)
            apart.append(1 - cells.max(axis=1).sum() / drawing.size)  # of each region, what is not its counterpart's
    assert np.mean(alike) >= 0.95 and np.mean(apart) <= 0.005, (np.mean(alike), np.mean(apart))


@pytest.mark.parametrize("name", SETS)
def test_every_option_takes_real_drawings(name, sets):
    options = [{"closing": "morphology"}, {"strokes": "none"}, {"gap": 0.0}, {"gap": 0.5}, {"levels": 0}, {"min_area": 0.0}]
    for drawing in sets[name][:: 1 + len(sets[name]) // 12]:
        for option in options:
            regions = Enclosed(**option)(drawing)
            graph = Hybrid()(regions)
            assert 1 <= regions.count <= 16 and np.isfinite(graph.nodes).all() and np.isfinite(graph.edges).all()
