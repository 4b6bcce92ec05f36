"""Reports region statistics of a set of drawings.

    python -m ragaf_exp.commands.region_survey drawings='[DIR,DIR]' [size=256] [out=FILE.png] [regions.KEY=VALUE ...]

One line per folder: the number of drawings, their regions, the share with a region apart from the background, and the
number of damaged files, which are named and left out. Hidden names are skipped. out: an image of the first drawings'
regions. Takes every override of the groups regions and graph. Example:

    python -m ragaf_exp.commands.region_survey drawings='[sketches]' regions.gap=0.05 out=regions.png
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.writable import check_file

log = logging.getLogger(__name__)
FIGURE = 0.02  # of the picture: a region this large that is not the background is a figure
SHOWN = 12  # drawings of each folder in the picture
HEAD = ("drawings", "files", "regions: median", "5 %", "95 %", "with a figure", "ms each", "damaged")


@dataclass(frozen=True)
class Survey:
    """What a folder's drawings fall into."""

    folder: Path
    counts: list[int]  # regions of each drawing
    figures: list[bool]  # whether it has a figure
    milliseconds: float  # of finding regions and graph, median
    damaged: list[str]  # why the other files can't be read, one line each

    def cells(self) -> tuple[str, ...]:
        low, middle, high = np.percentile(self.counts, (5, 50, 95))
        return (
            str(self.folder), str(len(self.counts)), f"{middle:g}", f"{low:g}", f"{high:g}",
            f"{np.mean(self.figures):.0%}", f"{self.milliseconds:.2f}", str(len(self.damaged)),
        )  # fmt: skip


def main() -> None:
    overrides = [word for word in sys.argv[1:] if word.startswith(("regions", "graph"))]
    args = parse_args([w for w in sys.argv[1:] if w not in overrides], {"drawings": list, "size": int, "out": str})
    if not args.get("drawings"):
        raise UserError("drawings=: missing; name folders of drawings, as drawings='[DIR,DIR]'")
    if "out" in args:
        check_file(Path(args["out"]), "out")
    size = args.get("size", 256)
    if size < 1:
        raise UserError(f"size={size}: must be at least 1; take 256")
    rows, pictures = [HEAD], []
    for folder in args["drawings"]:
        survey, shown = look(Path(folder), size, overrides)
        rows.append(survey.cells())
        pictures += shown
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if "out" in args:
        from ragaf_exp.viz.panels import save_png

        Path(args["out"]).parent.mkdir(parents=True, exist_ok=True)
        save_png(Path(args["out"]), _tiled(pictures))


def look(folder: Path, size: int, overrides: list[str]) -> tuple[Survey, list[np.ndarray]]:
    """A folder's figures, and overlays (h,w,3) of its first drawings. UserError where it has no whole picture."""
    from tqdm import tqdm

    from ragaf_exp.config.build import build
    from ragaf_exp.config.compose import compose_config
    from ragaf_exp.data.fit import fit_drawing
    from ragaf_exp.data.images import read_drawing, stroke_share, warn_of_odd
    from ragaf_exp.viz.regions import region_overlay

    cfg = compose_config(overrides)
    find, connect = build(cfg.regions, "regions"), build(cfg.graph, "graph")
    counts, figures, times, pictures, damaged, shares = [], [], [], [], [], {}
    for path in tqdm(list(_pictures(folder)), desc=str(folder), unit="drawing"):
        try:
            drawing = read_drawing(path)
        except UserError as error:
            damaged.append(str(error))
            continue
        shares[path] = stroke_share(drawing)
        sketch = fit_drawing(drawing, size)
        if not times:  # the first call compiles
            connect(find(sketch))
        began = time.perf_counter()
        regions = find(sketch)
        graph = connect(regions)
        times.append((time.perf_counter() - began) * 1000)
        counts.append(regions.count)
        areas = np.bincount(regions.labels[regions.labels >= 0], minlength=regions.count)
        figures.append(bool((np.delete(areas, max(regions.background, 0)) >= FIGURE * sketch.size).any()))
        if len(pictures) < SHOWN:
            pictures.append(region_overlay(sketch, regions, graph))
    warn_of_odd(shares)
    _report(folder, damaged, len(counts))
    return Survey(folder, counts, figures, float(np.median(times)), damaged), pictures


def _report(folder: Path, damaged: list[str], whole: int) -> None:
    """Name the damaged files. UserError where there is no other."""
    from ragaf_exp.data.listing import in_short

    text = f"drawings={folder}: {len(damaged)} of {len(damaged) + whole} files are damaged: {in_short(damaged, '; ')}"
    if not whole:
        raise UserError(text)
    if damaged:
        log.warning("%s; they are left out", text)


def _tiled(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures of one size, six in a row."""
    rows = [pictures[i : i + 6] for i in range(0, len(pictures), 6)]
    rows[-1] += [np.full_like(pictures[0], 255)] * (6 - len(rows[-1]))
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _pictures(folder: Path) -> Iterator[Path]:
    from ragaf_exp.data.images import SUFFIXES
    from ragaf_exp.data.listing import listed

    if not folder.is_dir():
        raise UserError(f"drawings={folder}: no such folder")
    pictures, _ = listed(folder)
    if not pictures:
        raise UserError(f"drawings={folder}: no pictures in it; known are {', '.join(SUFFIXES)}")
    yield from (folder / path for path in pictures)


if __name__ == "__main__":
    guarded(main)
