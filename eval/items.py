"""The scores of every test item: items.jsonl of a run folder, one line per item.

Figures, difficulty groups and paired comparisons are computed from them. A line of the file, which
`pandas.read_json(..., lines=True)` reads as well:

    {"schema": 1, "key": "scenes0-test-7", "image": "9f86d081884c", "sketch": "60303ae22b99", "stroke_density": 0.071,
     "regions": 4, "areas": [0.12, 0.08], "values": {"ssim": 0.61, "binding_accuracy": [1.0, 0.0], ...}}

`values` are named as in metrics.json, with the prefix of the stage but for the last one's. A number is the whole item's;
a list holds one number for each of its objects, in the order of `areas`, or of its regions, null where the metric does
not concern one. A figure of metrics.json is the mean over all of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics.sketch_fidelity import STROKE_LEVEL
from eval.statistics.bootstrap import figure
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import parse_json, write_text
from ragaf_exp.core.safe_files import LOG, read_bounded
from ragaf_exp.core.types import Example
from ragaf_exp.runs.metrics_jsonl import named

log = logging.getLogger(__name__)
SCHEMA = 1
Values = float | list[float | None]  # of one item: its own number, or one for each object or region


@dataclass
class ItemRow:
    """One test item: its identity, its difficulty and its scores."""

    key: str
    image: str = ""  # checksum of the true image and the caption: equal for equal items of two runs
    sketch: str = ""  # checksum of the sketch that the image was generated from
    stroke_density: float | None = None  # share of the pixels that are stroke
    regions: int | None = None
    areas: list[float] = field(default_factory=list)  # of each object's mask, as a share of the image
    difficulty: int | None = None  # the data set's own rating
    values: dict[str, Values] = field(default_factory=dict)


def item_row(
    key: str, image: np.ndarray, caption: str = "", sketch: np.ndarray | None = None, regions: int | None = None,
    masks: Sequence[np.ndarray] = (),
) -> ItemRow:  # fmt: skip
    """The facts of an item, without scores.

    Args:
        key: The item's name.
        image: The true image, (H,W,3) uint8.
        caption: Its caption.
        sketch: (H,W) in [0,1]; None if unknown.
        regions: Number of regions; None if unknown.
        masks: (H,W) bool of each object, in the order of per-object values.
    """
    facts = ItemRow(key, _checksum(image, caption), regions=regions, areas=[float(np.mean(m)) for m in masks])
    if sketch is not None:
        facts.sketch = _checksum(np.rint(255 * sketch).astype(np.uint8))
        facts.stroke_density = float(np.mean(sketch >= STROKE_LEVEL))
    return facts


def row_of(example: Example) -> ItemRow:
    """The facts of a test example."""
    item = example.item
    masks = [item.object_map == thing.label for thing in item.objects]
    row = item_row(item.key, item.image, item.caption, example.sketch, example.regions.count, masks)
    row.difficulty = item.difficulty
    return row


def add_values(rows: Sequence[ItemRow], name: str, values: Sequence[float | Sequence[float | None] | None]) -> None:
    """Record the scores of a metric.

    Args:
        rows: The items.
        name: The metric.
        values: In the order of `rows`, a number or a list with one for each object or region. None leaves the item,
            object or region out.

    Raises:
        ValueError: For another number of items, NaN and infinity.
    """
    if len(values) != len(rows):
        raise ValueError(f"{name}: values of {len(values)} items for {len(rows)}")
    for row, value in zip(rows, values, strict=True):
        if value is None:
            continue
        scored = _plain(value)
        if not all(map(_finite, numbers(scored))):
            raise ValueError(f"{name}: {value} of {row.key} is not finite")
        row.values[name] = scored


def numbers(value: Values | None) -> list[float]:
    """The numbers of one item's value, without None."""
    if value is None:
        return []
    return [v for v in value if v is not None] if isinstance(value, list) else [value]


def flat(rows: Sequence[ItemRow], name: str) -> tuple[list[float], list[str] | None]:
    """All numbers of a metric, and the keys of their items; the keys are None if every item has a single number."""
    pairs = [(v, row.key) for row in rows for v in numbers(row.values.get(name))]
    single = not any(isinstance(row.values.get(name), list) for row in rows)
    return [v for v, _ in pairs], None if single else [key for _, key in pairs]


def figure_of(
    rows: Sequence[ItemRow], name: str, *, higher_is_better: bool, resamples: int = 2000, **measured_with: Any
) -> dict[str, Any]:
    """A metric's entry of metrics.json: `eval.statistics.bootstrap.figure` of all its values, clustered by item.

    Args:
        rows: The items with their scores.
        name: The metric.
        higher_is_better: Recorded with the figure.
        resamples: Of the bootstrap.
        **measured_with: Further facts to record.
    """
    values, clusters = flat(rows, name)
    return figure(values, clusters=clusters, higher_is_better=higher_is_better, resamples=resamples, **measured_with)


def write_items(path: Path, rows: Sequence[ItemRow]) -> None:
    """Write the file atomically. Raises ValueError if a key occurs twice."""
    twice = _repeated([row.key for row in rows])
    if twice is not None:
        raise ValueError(f"{path}: the key {twice} occurs twice")
    lines = (json.dumps({"schema": SCHEMA, **asdict(row)}, allow_nan=False) + "\n" for row in rows)
    write_text(path, "".join(lines))


def read_items(path: Path) -> list[ItemRow]:
    """The rows of the file; lines that can't be read are skipped with a warning.

    Raises UserError if the file is missing, has a newer schema, no rows, or a key twice.
    """
    return read_counted(path)[0]


def read_counted(path: Path) -> tuple[list[ItemRow], int]:
    """The rows of the file as `read_items` returns them, and the number of skipped lines."""
    try:
        lines = read_bounded(path.parent.resolve() / path.name, LOG).decode().splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; evaluate again to write it") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged (no text); evaluate again to write it") from error
    parsed = [_parsed(path, line) for line in lines]
    rows = [row for row in parsed if row is not None]
    unreadable = [number for number, row in enumerate(parsed, 1) if row is None]
    if unreadable and not rows:
        raise UserError(f"{path}: damaged ({named(unreadable)}); evaluate again to write it")
    twice = _repeated([row.key for row in rows])
    if twice is not None:
        raise UserError(f"{path}: damaged (the key {twice} occurs twice); evaluate again to write it")
    if unreadable:
        log.warning("%s: %s; skipped, evaluate again to write the file whole", path, named(unreadable))
    return rows, len(unreadable)


def _parsed(path: Path, line: str) -> ItemRow | None:
    """The row of a line; None if the line is damaged."""
    try:
        content = parse_json(line)
        schema = content.pop("schema")
        if schema > SCHEMA:
            raise UserError(f"{path}: schema {schema} is newer than this version's {SCHEMA}; update ragaf_exp")
        row = ItemRow(**content)
        return row if _fits(row) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _fits(row: ItemRow) -> bool:
    texts = all(isinstance(text, str) for text in (row.key, row.image, row.sketch))
    facts = [v for v in (row.stroke_density, row.regions, row.difficulty) if v is not None]
    values = [v for value in row.values.values() for v in numbers(value)]
    return texts and all(map(_finite, [*facts, *row.areas, *values]))


def _repeated(keys: list[str]) -> str | None:
    known: set[str] = set()
    return next((key for key in keys if key in known or known.add(key)), None)


def _plain(value: Any) -> Values:
    """Convert NumPy's numbers and arrays to Python's, for JSON."""
    if isinstance(value, Sequence | np.ndarray):
        return [None if v is None else float(v) for v in value]
    return float(value)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _checksum(array: np.ndarray, text: str = "") -> str:
    head = f"{array.shape} {array.dtype} {text}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:12]
