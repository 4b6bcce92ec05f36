"""The regions of a drawing, and edits of them, in the form that the page takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Graph, Regions
from ragaf_exp.data.fit import fit_drawing, fit_image
from ragaf_exp.data.images import MOST as USUAL_STROKES
from ragaf_exp.data.images import read_drawing, stroke_share
from ragaf_exp.data.uploads import check_picture, from_base64, read_rgb, to_base64
from ragaf_exp.regions.editing import Edited, delete, merge, paint, rebuild, split
from ragaf_exp.regions.openings import openings
from ragaf_exp.regions.points import region_points
from ragaf_exp.studio.limits import REGIONS

Extract: TypeAlias = Callable[[np.ndarray], Regions]  # (H,W) in [0,1], 1 = stroke -> regions
HALVES = {"left-right": 1, "top-bottom": 0}  # the axis along which a region is halved


class Drawings:
    """Finds the regions of drawings and edits them by hand.

    Args:
        size: Height and width of the images of the run.
        extract: The region extractor of the run.
        wider: The same with wider gaps, narrowest first, which show where an outline leaks.
        graph: The graph builder of the run.
        sketches: Sketch extractors for photos by name: (image, None) -> sketch.
    """

    def __init__(
        self, size: tuple[int, int], extract: Extract, wider: list[Extract], graph: Callable[[Regions], Graph],
        sketches: Mapping[str, Callable[..., np.ndarray]],
    ):  # fmt: skip
        self.size, self.extract, self.wider, self.graph, self.sketches = size, extract, wider, graph, sketches

    def read(self, picture: bytes, method: str = "") -> np.ndarray:
        """Read a drawing, or extract one from a photo.

        Args:
            picture: The content of a PNG, JPEG or WebP.
            method: Name of the sketch extractor for a photo; "" = the picture is a drawing.

        Returns:
            (H,W) float32 in [0,1], 1 = stroke, at the size of the run.

        Raises:
            UserError: The picture can't be read, or the method is unknown.
        """
        if not method:
            check_picture(picture, "drawing")
            return fit_drawing(read_drawing("drawing", content=picture), self.size)
        if method not in self.sketches:
            raise UserError(f"extract={method[:32]}: must be one of {', '.join(self.sketches)}")
        rgb, _ = read_rgb(picture, "photo")
        return self.sketches[method](fit_image(rgb, self.size, "pad", "white"), None)

    def describe(self, sketch: np.ndarray) -> dict[str, Any]:
        """Find the regions of a drawing (H,W) in [0,1], and the openings of its outlines."""
        began = time.perf_counter()
        sketch = np.rint(sketch * 255).astype(np.uint8)  # what the page sends back with a job
        strokes = sketch.astype(np.float32) / 255
        regions = self.extract(strokes)
        content = {"sketch": to_base64(sketch), **self._listed(regions), "leaks": self._leaks(strokes, regions)}
        return {**content, "warning": _oddity(strokes), "ms": round(1000 * (time.perf_counter() - began), 1)}

    def edit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Edit a label map by hand: merge, split, halve, delete, paint or rebuild.

        Args:
            request: Its labels, the operation `op` and what it needs.

        Returns:
            The regions, and `came`, the old index of each, -1 = new.

        Raises:
            UserError: The request is invalid, or the operation is not possible.
        """
        labels = from_base64(request.get("labels"), "<i2", self.size, "labels")
        name = request.get("op")
        if not isinstance(name, str) or name not in OPERATIONS:
            raise UserError(f"op={str(name)[:32]}: must be one of {', '.join(OPERATIONS)}")
        regions, order = rebuild(labels, REGIONS)
        try:
            edited, came = OPERATIONS[name](regions, _renumbered(request, order))
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise UserError(f"op={name}: its arguments are missing or of the wrong kind") from error
        return {**self._listed(edited), "came": [int(order[i]) if i >= 0 else -1 for i in came]}

    def relabel(self, labels: np.ndarray) -> dict[str, Any]:
        """Take over a label map (h,w) of any size and numbers; each value is a region."""
        height, width = self.size
        rows = np.arange(height) * labels.shape[0] // height
        columns = np.arange(width) * labels.shape[1] // width
        regions, came = rebuild(labels[rows[:, None], columns], REGIONS)
        return {**self._listed(regions), "came": came.tolist()}

    def _listed(self, regions: Regions) -> dict[str, Any]:
        height, width = self.size
        areas = np.bincount(regions.labels[regions.labels >= 0], minlength=regions.count)
        points = region_points(regions.labels, regions.count)
        rows = [{"index": i, "area": int(areas[i]), "at": list(points[i]), "parent": int(regions.parent[i]),
                 "depth": int(regions.depth[i])} for i in range(regions.count)]  # fmt: skip
        mask = self.graph(regions).edge_mask
        edges = np.argwhere(np.triu(mask | mask.T, 1)).tolist()
        return {"width": width, "height": height, "labels": to_base64(regions.labels.astype("<i2")),
                "background": regions.background, "regions": rows, "edges": edges}  # fmt: skip

    def _leaks(self, sketch: np.ndarray, regions: Regions) -> list[dict[str, Any]]:
        for extract in self.wider:
            if leaks := openings(sketch, regions, extract(sketch)):
                return [asdict(leak) for leak in leaks]
        return []


def _merge(regions: Regions, request: Mapping[str, Any]) -> Edited:
    return merge(regions, request["regions"], REGIONS)


def _delete(regions: Regions, request: Mapping[str, Any]) -> Edited:
    return delete(regions, request["regions"], REGIONS)


def _split(regions: Regions, request: Mapping[str, Any]) -> Edited:
    height, width = regions.labels.shape
    line = [(float(x) * width - 0.5, float(y) * height - 0.5) for x, y in request["line"][:1000]]
    if not np.isfinite(line).all():
        raise UserError("split: the line must have finite numbers")
    return split(regions, request["region"], line, REGIONS)


def _halve(regions: Regions, request: Mapping[str, Any]) -> Edited:
    """Assign one half of a region's pixels to a new region: a split without drawing a line."""
    axis = HALVES[request["along"]]
    if not 0 <= request["region"] < regions.count:
        raise UserError(f"region {request['region']}: there are regions 0 to {regions.count - 1}")
    inside = regions.labels == request["region"]
    position = np.indices(inside.shape)[axis]
    half = inside & (position > np.median(position[inside]))
    if not half.any():
        raise UserError(f"halve: region {request['region']} is too narrow; choose the other direction")
    return paint(regions, half, None, REGIONS)


def _paint(regions: Regions, request: Mapping[str, Any]) -> Edited:
    mask = from_base64(request["mask"], "u1", regions.labels.shape, "mask") > 0
    return paint(regions, mask, request["into"], REGIONS)


def _rebuild(regions: Regions, request: Mapping[str, Any]) -> Edited:
    return regions, np.arange(regions.count)


OPERATIONS: dict[str, Callable[[Regions, Mapping[str, Any]], Edited]] = {
    "merge": _merge, "split": _split, "halve": _halve, "delete": _delete, "paint": _paint, "rebuild": _rebuild,
}  # fmt: skip


def _renumbered(request: Mapping[str, Any], order: np.ndarray) -> dict[str, Any]:
    """Translate the indices of a request, which are values of its label map, to those of the rebuilt regions."""
    number = {int(value): index for index, value in enumerate(order)}

    def of(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not int or value not in number:
            raise UserError(f"region {str(value)[:16]}: there is no such region in labels")
        return number[value]

    content = {key: request[key] for key in ("line", "along", "mask") if key in request}
    content |= {key: of(request[key]) for key in ("region", "into") if key in request}
    if "regions" in request:
        content["regions"] = [of(value) for value in request["regions"]]
    return {"into": None, **content}


def _oddity(sketch: np.ndarray) -> str | None:
    share = stroke_share(sketch)
    if share == 0:
        return "nothing is drawn yet"
    if share > USUAL_STROKES:
        return f"{100 * share:.0f} % of the picture is stroke; is it a photo? Then choose an extractor"
    return None
