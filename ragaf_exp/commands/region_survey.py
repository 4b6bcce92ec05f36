"""Reports region statistics of a set of drawings.

    python -m ragaf_exp.commands.region_survey drawings='[DIR,DIR]' [size=256] [out=FILE.png] [regions.KEY=VALUE ...]

Prints one line per folder: the number of drawings, statistics of their regions, the share with a region other than the
background, and the number of damaged files, which are reported and skipped. Hidden files are ignored. out: an image of the
first drawings' regions. Takes all overrides of the groups regions and graph. Example:

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
OBJECT = 0.02  # share of the area from which a region other than the background counts as an object
SHOWN = 12  # drawings of each folder in the image
HEAD = ("drawings", "files", "regions: median", "5 %", "95 %", "with an object", "ms each", "damaged")


@dataclass(frozen=True)
class Survey:
    """Region statistics of a folder of drawings."""

    folder: Path
    counts: list[int]  # regions per drawing
    objects: list[bool]  # whether a drawing has an object
    milliseconds: float  # median time to compute regions and graph
    damaged: list[str]  # the error of each file that cannot be read

    def cells(self) -> tuple[str, ...]:
        low, middle, high = np.percentile(self.counts, (5, 50, 95))
        return (
            str(self.folder), str(len(self.counts)), f"{middle:g}", f"{low:g}", f"{high:g}",
            f"{np.mean(self.objects):.0%}", f"{self.milliseconds:.2f}", str(len(self.damaged)),
        )  # fmt: skip


def main() -> None:
    overrides = [text for text in sys.argv[1:] if text.startswith(("regions", "graph"))]
    args = parse_args([text for text in sys.argv[1:] if text not in overrides], {"drawings": list, "size": int, "out": str})
    if not args.get("drawings"):
        raise UserError("drawings=: missing; name folders of drawings, e.g. drawings='[DIR,DIR]'")
    if "out" in args:
        check_file(Path(args["out"]), "out")
    size = args.get("size", 256)
    if size < 1:
        raise UserError(f"size={size}: must be at least 1; use 256")
    rows, pictures = [HEAD], []
    for folder in args["drawings"]:
        survey, overlays = survey_folder(Path(folder), size, overrides)
        rows.append(survey.cells())
        pictures += overlays
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if "out" in args:
        from ragaf_exp.viz.panels import save_png

        Path(args["out"]).parent.mkdir(parents=True, exist_ok=True)
        save_png(Path(args["out"]), _tiled(pictures))


def survey_folder(folder: Path, size: int, overrides: list[str]) -> tuple[Survey, list[np.ndarray]]:
    """Survey the drawings of a folder.

    Args:
        folder: The folder.
        size: Side to which drawings are scaled, in px.
        overrides: Overrides of the groups regions and graph.

    Returns:
        Its statistics, and overlays (h,w,3) uint8 of its first drawings.

    Raises:
        UserError: If it has no readable drawing.
    """
    from tqdm import tqdm

    from ragaf_exp.config.build import build
    from ragaf_exp.config.compose import compose_config
    from ragaf_exp.data.fit import fit_drawing
    from ragaf_exp.data.images import read_drawing, stroke_share, warn_of_odd
    from ragaf_exp.viz.regions import region_overlay

    cfg = compose_config(overrides)
    find, connect = build(cfg.regions, "regions"), build(cfg.graph, "graph")
    counts, objects, times, pictures, damaged, shares = [], [], [], [], [], {}
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
        objects.append(bool((np.delete(areas, max(regions.background, 0)) >= OBJECT * sketch.size).any()))
        if len(pictures) < SHOWN:
            pictures.append(region_overlay(sketch, regions, graph))
    warn_of_odd(shares)
    _report(folder, damaged, len(counts))
    return Survey(folder, counts, objects, float(np.median(times)), damaged), pictures


def _report(folder: Path, damaged: list[str], readable: int) -> None:
    """Warn about damaged files. Raises UserError if no file is readable."""
    from ragaf_exp.data.listing import in_short

    text = f"drawings={folder}: {len(damaged)} of {len(damaged) + readable} files are damaged: {in_short(damaged, '; ')}"
    if not readable:
        raise UserError(text)
    if damaged:
        log.warning("%s; they are left out", text)


def _tiled(pictures: list[np.ndarray]) -> np.ndarray:
    """Images of the same size, six per row."""
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
