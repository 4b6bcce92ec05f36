"""Scores of edited images: within holes, of hidden and removed objects, of colours. Each function: Scoring -> values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from eval.metrics.colour import angular_error, delta_e_2000, mse_255
from eval.metrics.holes import kept_unchanged, l1_hole, psnr_hole, ssim_hole
from eval.scoring import Scoring, Values
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Example
from ragaf_exp.data.correction import light_of
from ragaf_exp.data.light import mired_of
from ragaf_exp.data.sources.palette import delta_e, to_lab

HIDDEN = 0.9  # share of an object's pixels from which on the hole hides it


def hole_metrics(s: Scoring) -> Values:
    """PSNR, SSIM and L1 of the painted pixels, and whether all others are as given."""
    return {
        "psnr_hole": _each(s, lambda image, e: psnr_hole(image, e.item.image, _hole(e))),
        "ssim_hole": _each(s, lambda image, e: ssim_hole(image, e.item.image, _hole(e))),
        "l1_hole": _each(s, lambda image, e: l1_hole(image, e.item.image, _hole(e))),
        "kept_unchanged": [
            kept_unchanged(image, e.conditions["given"], _painted(e)) for image, e in zip(s.images, s.examples, strict=True)
        ],
    }


def hidden_metrics(s: Scoring) -> Values:
    """Colours of the objects that the hole hides, by the caption."""
    if all(scene is None for scene in s.scenes):
        return {}
    return {
        "hidden_binding": [
            scene and [float(b.correct) if _hides(e, b.object.label) else None for b in scene]
            for scene, e in zip(s.scenes, s.examples, strict=True)
        ]
    }


def removal_metrics(s: Scoring) -> Values:
    """Whether the removed object is still visible, and the PSNR where its shadow was; of embedded data alone."""
    if not all({"removed", "colour", "shadow"} <= e.item.conditions.keys() for e in s.examples):
        return {}
    pairs = list(zip(s.images, s.examples, strict=True))
    return {
        "still_visible": [float(_visible(image, e)) for image, e in pairs],
        "psnr_shadow": [_of_shadow(image, e) for image, e in pairs],
    }


def colour_metrics(s: Scoring) -> Values:
    """Errors of a colour correction, and of the light that it implies where the data has the true one."""
    values = colour_errors(s.images, [e.item.image for e in s.examples])
    if any("light" in e.item.conditions for e in s.examples):
        values["mired_error"] = [_mired_error(image, e) for image, e in zip(s.images, s.examples, strict=True)]
    return values


def colour_errors(images: Iterable[np.ndarray], truths: Iterable[np.ndarray]) -> Values:
    """Delta E 2000, angular error and MSE of each image (H,W,3) uint8 to its truth."""
    functions = {"delta_e_2000": delta_e_2000, "angular_error": angular_error, "mse_255": mse_255}
    rows = [[function(*pair) for function in functions.values()] for pair in zip(images, truths, strict=True)]
    return {name: list(column) for name, column in zip(functions, zip(*rows, strict=True), strict=True)}


def _mired_error(image: np.ndarray, example: Example) -> float | None:
    truth = example.item.conditions.get("light")
    if truth is None:
        return None
    return abs(mired_of(light_of(example.conditions["given"], image).kelvin) - 100 * float(truth[0]))


def _each(s: Scoring, score: Callable[[np.ndarray, Example], float]) -> list[float | None]:
    """The score of each image; None where the hole is empty."""
    pairs = zip(s.images, s.examples, strict=True)
    return [score(image, e) if _hole(e).any() else None for image, e in pairs]


def holes_of(examples: Sequence[Example]) -> Sequence[np.ndarray] | None:
    """The hole of each example, (H,W) bool; None where the task has no holes."""
    if not examples or "hole" not in examples[0].conditions:
        return None
    return LazyItems(lambda i: _hole(examples[i]), len(examples))


def _hole(example: Example) -> np.ndarray:
    return example.conditions["hole"] > 0


def _painted(example: Example) -> np.ndarray:
    """(H,W) bool: pixels that the task may change."""
    return example.conditions.get("painted", example.conditions["hole"]) > 0


def _hides(example: Example, label: int) -> bool:
    assert example.item.object_map is not None, "a scene with objects has their map"
    mask = example.item.object_map == label
    return bool(_hole(example)[mask].mean() >= HIDDEN)


def _visible(image: np.ndarray, example: Example) -> bool:
    """Whether most pixels of the removed object are nearer to its colour than to the truth."""
    mask, colour = example.item.conditions["removed"] > 0, example.item.conditions["colour"].astype(np.uint8)
    if not mask.any():
        return False
    lab, truth = to_lab(image[mask]), to_lab(example.item.image[mask])
    nearer = delta_e(lab, to_lab(colour[None])) < delta_e(lab, truth)
    return bool(nearer.mean() > 0.5)


def _of_shadow(image: np.ndarray, example: Example) -> float | None:
    mask = example.item.conditions["shadow"] > 0
    return psnr_hole(image, example.item.image, mask) if mask.any() else None
