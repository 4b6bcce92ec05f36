"""Tests which metrics detect which kind of image damage.

    python -m eval.damage images=DIR out=FILE.md [size=256] [items=N] [squeezenet=FILE]

Images are damaged in growing steps and compared with the originals: a metric that claims to detect a kind of damage must
get worse at every step. The reference sketch is the edge map of the undamaged image. Example:

    python -m eval.damage images=photos out=damage.md items=20
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from eval.edges import edge_curve
from eval.images import ImageSet, ahead
from eval.metrics.distances import frechet, moments
from eval.metrics.sketch_fidelity import compare
from eval.registry import SKETCH, higher_is_better, image_scores, in_group
from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_text
from ragaf_exp.core.markdown import table as markdown_table
from ragaf_exp.core.writable import check_file

LPIPS, FRECHET = "lpips", "fd_squeezenet"
EVERYWHERE = ("mse", "psnr", "ssim", LPIPS)


@dataclass(frozen=True)
class Damage:
    """A kind of damage with growing levels. apply: (picture (H,W,3) uint8, level, the picture's index) -> picture."""

    what: str
    levels: tuple[float, ...]
    apply: Callable[[np.ndarray, float, int], np.ndarray]
    seen_by: tuple[str, ...]  # metrics that should detect it


def blurred(image: np.ndarray, deviation: float, number: int = 0) -> np.ndarray:
    """Gaussian blur.

    Args:
        image: (H,W,3) uint8.
        deviation: Standard deviation in px.
        number: Not used.
    """
    return cv2.GaussianBlur(image, (0, 0), deviation, borderType=cv2.BORDER_REFLECT)


def noised(image: np.ndarray, deviation: float, number: int = 0) -> np.ndarray:
    """Gaussian noise on every channel.

    Args:
        image: (H,W,3) uint8.
        deviation: Standard deviation, of 255.
        number: Seed: the picture's index, the same at every level.
    """
    noise = np.random.default_rng(number).standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image + deviation * noise), 0, 255).astype(np.uint8)


def recoloured(image: np.ndarray, difference: float, number: int = 0) -> np.ndarray:
    """Shift every colour towards orange, a* and b* alike, at the same lightness.

    Args:
        image: (H,W,3) uint8.
        difference: Size of the shift in CIE76 units.
        number: Not used.
    """
    lab = cv2.cvtColor(np.multiply(image, 1 / 255, dtype=np.float32), cv2.COLOR_RGB2LAB)
    lab[..., 1:] += difference / np.sqrt(2)
    return np.clip(np.rint(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255), 0, 255).astype(np.uint8)


def shifted(image: np.ndarray, pixels: float, number: int = 0) -> np.ndarray:
    """Shift to the right; the left border is filled by reflection.

    Args:
        image: (H,W,3) uint8.
        pixels: Whole px.
        number: Not used.
    """
    px = int(pixels)
    return cv2.copyMakeBorder(image, 0, 0, px, 0, cv2.BORDER_REFLECT)[:, : image.shape[1]]


# Blur only removes edges and noise only adds them: precision can't detect blur, and recall can't detect noise. F1 ignores
# a shift below the tolerance, so only the first level is that small.
DAMAGES = {
    "blur": Damage(
        "Gaussian blur, px", (0.5, 1, 2, 4), blurred,
        (*EVERYWHERE, FRECHET, "sketch_f1", "sketch_recall", "chamfer", "edge_ms_ssim"),
    ),
    "noise": Damage(
        "Gaussian noise, of 255", (5, 10, 20, 40), noised,
        (*EVERYWHERE, FRECHET, "sketch_f1", "sketch_precision", "chamfer", "edge_ms_ssim"),
    ),
    "colour": Damage("colour shift, CIE76", (5, 10, 20, 40), recoloured, (*EVERYWHERE, FRECHET)),
    "shift": Damage("shift, px", (2, 4, 8, 16), shifted, (*EVERYWHERE, *in_group(SKETCH))),
}  # fmt: skip


def scores(images: ImageSet, damage: Damage, lpips: Any = None, network: Any = None) -> dict[str, np.ndarray]:
    """Score pictures undamaged and at every level.

    Args:
        images: The N pictures.
        damage: The kind of damage.
        lpips: An eval.lpips.Lpips; None leaves its metric out.
        network: An eval.features.Network; None leaves its metric out.

    Returns:
        Arrays (levels + 1, N) by metric; (levels + 1, 1) for fd_squeezenet, which scores whole sets.

    Raises:
        UserError: For a picture that can't be read.
    """
    rows: dict[str, list[np.ndarray]] = {}
    features = []
    judged = ahead(partial(_judged, images, damage), range(len(images)))
    for states, values_of in tqdm(judged, total=len(images), desc=damage.what, unit="image", disable=None):
        if lpips is not None:
            values_of[LPIPS] = lpips(states, states[:1] * len(states))
        if network is not None:
            features.append(network(states))
        for name, values in values_of.items():
            rows.setdefault(name, []).append(np.asarray(values, np.float64))
    result = {name: np.stack(columns, 1) for name, columns in rows.items()}
    if features:
        whole, *levels = (moments(np.stack(of_level)) for of_level in zip(*features, strict=True))
        result[FRECHET] = np.array([[frechet(*whole, *level)] for level in (whole, *levels)])
    return {name: result[name] for name in measured() if name in result}


def _judged(images: ImageSet, damage: Damage, number: int) -> tuple[list[np.ndarray], dict[str, list[float]]]:
    """A picture undamaged and at every level, and the scores of each that need no network."""
    image = images[number]
    states = [image, *(damage.apply(image, level, number) for level in damage.levels)]
    by_name = {name: [score(state, image) for state in states] for name, score in image_scores().items()}
    strokes = edge_curve(image)
    fidelity = [compare(strokes, edge_curve(state)).values() for state in states]
    return states, by_name | {name: [values[name] for values in fidelity] for name in fidelity[0]}


def measured() -> list[str]:
    """Names of the table's metrics, in order."""
    return [*image_scores(), LPIPS, FRECHET, *in_group(SKETCH)]


def worsens(values: np.ndarray, better_if_higher: bool) -> bool:
    """Whether the mean (levels,N) gets worse at every step."""
    step = np.diff(values.mean(1))
    return bool((step < 0 if better_if_higher else step > 0).all())


def table(scored: dict[str, np.ndarray], damage: Damage) -> str:
    """A Markdown table: each metric's means at every level, and the share of single pictures whose score worsens."""
    levels = ["none", *(f"{level:g}" for level in damage.levels)]
    header = [damage.what, *levels, "claims to see it", "worse at every step", "single pictures"]
    rows = []
    for name, values in scored.items():
        better = higher_is_better(name)
        single = np.mean([worsens(values[:, [i]], better) for i in range(values.shape[1])])
        share = f"{single:.0%}" if values.shape[1] > 1 else ""
        verdicts = [("no", "yes")[fact] for fact in (name in damage.seen_by, worsens(values, better))]
        rows.append([f"`{name}`", *map(_number, values.mean(1)), *verdicts, share])
    return markdown_table(header, rows, text=len(header)) + "\n"


def _number(value: float) -> str:
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}" if value >= 0.01 or value == 0 else f"{value:.5f}"


def failures(scored: dict[str, np.ndarray], damage: Damage) -> Sequence[str]:
    """The metrics that should detect the damage and did not get worse at every step."""
    return [name for name, values in scored.items()
            if name in damage.seen_by and not worsens(values, higher_is_better(name))]  # fmt: skip


def main() -> None:
    args = parse_args(sys.argv[1:], {"images": str, "out": str, "size": int, "items": int, "squeezenet": str})
    for key in ("images", "out"):
        if key not in args:
            raise UserError(f"{key}=: missing; as in images=DIR out=FILE.md")
    for key, low in {"size": 32, "items": 2}.items():
        if args.get(key, low) < low:
            raise UserError(f"{key}={args[key]}: must be at least {low}")
    check_file(out := Path(args["out"]), "out")
    images = ImageSet.folder(args["images"], args.get("size", 256))
    images = images[: args.get("items", len(images))]
    if len(images) < 2:
        raise UserError(f"images={args['images']}: one picture; the table needs at least 2")
    networks = _networks(args["squeezenet"]) if "squeezenet" in args else {}
    side = args.get("size", 256)
    parts = [f"{len(images)} pictures, {side}x{side}.\n"]
    for damage in DAMAGES.values():
        parts.append(table(scores(images, damage, **networks), damage))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "\n".join(parts))
    print("\n".join(parts))


def _networks(weights: str) -> dict[str, Any]:
    from eval.features import load  # needs PyTorch, which is slow to import
    from eval.lpips import Lpips

    return {"lpips": Lpips("squeeze", backbone=weights), "network": load("squeezenet", squeezenet=weights)}


if __name__ == "__main__":
    guarded(main)
