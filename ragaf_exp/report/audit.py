"""The page of an audit: counts, sizes, and every finding with thumbnails of the worst items."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_text
from ragaf_exp.data.audit.files import Look
from ragaf_exp.data.audit.findings import Finding
from ragaf_exp.data.split import SPLITS
from ragaf_exp.report.render import render

THUMB = 96  # px
SHOWN = 8  # thumbnails of a finding


def write_page(out: Path, source: Any, looks: Mapping[str, Look], findings: Sequence[Finding]) -> None:
    """Write the page.

    Args:
        out: The file.
        source: The data source.
        looks: What its files hold.
        findings: The findings, errors first.
    """
    by_key = {record.key: record for record in source.records}
    content = {
        "title": f"Audit of {Path(source.root).name}",
        "root": str(source.root),
        "facts": facts(source, looks),
        "findings": [
            {"finding": finding, "thumbs": [t for key in finding.keys[:SHOWN] if (t := _thumb(source, by_key.get(key)))]}
            for finding in findings
        ],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render("audit.html", content))


def facts(source: Any, looks: Mapping[str, Look]) -> list[tuple[str, str]]:
    """List (name, value) of counts, sizes and channels."""
    readable = [look for look in looks.values() if not look.fault]
    images = [looks[path] for path in {r.image for r in source.records} if path in looks and not looks[path].fault]
    rows = [("items", f"{len(source.records):,}"), ("files inspected", f"{len(looks):,}")]
    rows += [(f"{split} split", f"{len(source.records_of(split)):,} items") for split in SPLITS]
    rows += [("captions", f"{sum(len(r.captions) for r in source.records):,}")]
    if images:
        sides = np.array([(look.width, look.height) for look in images])
        low, middle, high = np.percentile(sides, (0, 50, 100), axis=0).astype(int).tolist()
        rows += [("image size, px", f"{low[0]} x {low[1]} (least), {middle[0]} x {middle[1]} (median), "
                                    f"{high[0]} x {high[1]} (most)")]  # fmt: skip
        rows += [("upright / square / wide", " / ".join(map(str, _shapes(sides))))]
    modes = Counter(look.mode for look in readable)
    rows += [("channels", ", ".join(f"{count:,} {mode}" for mode, count in modes.most_common()) or "none")]
    return rows


def _shapes(sides: np.ndarray) -> tuple[int, int, int]:
    aspect = sides[:, 0] / sides[:, 1]
    return int((aspect < 0.95).sum()), int(((aspect >= 0.95) & (aspect <= 1.05)).sum()), int((aspect > 1.05).sum())


def _thumb(source: Any, record: Any) -> dict[str, str] | None:
    """Render an item's image and drawing side by side; None if it can't be read."""
    if record is None or record.problem:
        return None
    try:
        image, drawing = source.read(record)
    except (UserError, OSError):
        return None
    parts = [cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA)]
    if drawing is not None:
        ink = np.rint(255 * (1 - cv2.resize(drawing, (THUMB, THUMB), interpolation=cv2.INTER_AREA))).astype(np.uint8)
        parts.append(np.repeat(ink[..., None], 3, 2))
    packed = cv2.imencode(".jpg", np.ascontiguousarray(np.concatenate(parts, 1)[..., ::-1]))[1]
    uri = "data:image/jpeg;base64," + base64.b64encode(packed.tobytes()).decode()
    return {"uri": uri, "key": record.key, "caption": record.captions[0] if record.captions else "",
            "width": str(THUMB * len(parts))}  # fmt: skip
