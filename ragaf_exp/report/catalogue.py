"""How each figure of metrics.json is called, explained and written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

FIRST = "stage1/"  # prefix in metrics.json of stage 1's figures where stage 2 has some too


@dataclass(frozen=True)
class Metric:
    """How one figure is shown."""

    title: str
    meaning: str
    group: str
    share: bool = True  # lies in [0, 1] and gets a bar
    unit: str = ""
    digits: int = 3


COLOURS, SKETCH, ATTENTION, IMAGE = "Colours and fills", "Sketch", "Attention", "Image"
METRICS = {
    "binding_accuracy": Metric("Binding accuracy", "objects with the colour the caption gives them", COLOURS),
    "binding_accuracy_heldout": Metric("Binding, held-out", "colour-shape pairs never seen in training", COLOURS),
    "binding_accuracy_repeated": Metric("Binding, repeated", "objects whose shape the scene holds twice", COLOURS),
    "leak_rate": Metric("Leak rate", "objects that took another object's colour", COLOURS),
    "fill_accuracy": Metric("Fill accuracy", "plain, striped, dotted, hollow as the caption says", COLOURS),
    "sketch_f1": Metric("Sketch F1", "agreement of the image's edges with the strokes", SKETCH),
    "sketch_f1_shuffled": Metric("Sketch F1, chance", "the same against another item's sketch", SKETCH),
    "sketch_precision": Metric("Sketch precision", "edges of the image that lie on a stroke", SKETCH),
    "sketch_recall": Metric("Sketch recall", "strokes that an edge of the image lies on", SKETCH),
    "edge_ms_ssim": Metric("Soft edges, MS-SSIM", "likeness of strokes and edges over scales", SKETCH),
    "chamfer": Metric("Chamfer distance", "gap of edges and strokes, in diagonals", SKETCH, False, digits=4),
    "pointing_accuracy": Metric("Pointing accuracy", "a phrase's strongest region is its object", ATTENTION),
    "pointing_accuracy_repeated": Metric("Pointing, repeated", "objects whose shape the scene holds twice", ATTENTION),
    "attention_iou": Metric("Attention IoU", "overlap of a phrase's map with its object", ATTENTION),
    "attention_entropy": Metric("Attention entropy", "0: all on one word, 1: even on all", ATTENTION),
    "fid": Metric("FID", "distance of Inception features", IMAGE, False, digits=2),
    "kid": Metric("KID", "kernel distance of Inception features", IMAGE, False, digits=4),
    "fd_squeezenet": Metric("FD, SqueezeNet", "distance of SqueezeNet features", IMAGE, False, digits=2),
    "fd_embedded": Metric("FD, embedded", "distance of a small network's features", IMAGE, False, digits=2),
    "clip_score": Metric("CLIP score", "agreement of image and caption, of 100", IMAGE, False, digits=2),
    "clip_score_shuffled": Metric("CLIP score, chance", "the same for another item's caption", IMAGE, False, digits=2),
    "clip_directional": Metric("CLIP, direction of the edit", "agreement of both changes, -1 to 1", IMAGE, False),
    "region_clip_accuracy": Metric("Region CLIP", "regions whose crop ranks its own phrase first", COLOURS),
    "region_clip_chance": Metric("Region CLIP, chance", "the same by guessing", COLOURS),
    "lpips": Metric("LPIPS", "perceptual distance to the truth", IMAGE, False),
    "ssim": Metric("SSIM", "structural similarity to the truth", IMAGE),
    "psnr": Metric("PSNR", "signal-to-noise ratio against the truth", IMAGE, False, " dB", 2),
    "mse": Metric("MSE", "mean squared error on [0, 1]", IMAGE, False, digits=4),
    "seam_ratio": Metric("Seam ratio", "change across patch borders over change within", IMAGE, False),
}
HEADLINES = (
    "binding_accuracy", "binding_accuracy_heldout", "leak_rate", "sketch_f1", "pointing_accuracy",
    "fill_accuracy", "fid", "clip_score", "ssim", "psnr",
)  # fmt: skip
# endings of what a figure is held against
BASELINES = {"_shuffled": ", chance", "_uniform": ", of a uniform map", "_chance": ", chance"}
_UNKNOWN = Metric("", "", "Other", False)


def plain(name: str) -> str:
    """The name without the prefix of stage 1."""
    return name.removeprefix(FIRST)


def base(name: str) -> str:
    """The name of the figure that a baseline belongs to, or the plain name itself."""
    ending = next((e for e in BASELINES if name.endswith(e)), "")
    return plain(name).removesuffix(ending)


def metric(name: str) -> Metric:
    """How the figure of this name is shown; a baseline that is not in the catalogue as the figure it belongs to."""
    known = METRICS.get(plain(name)) or METRICS.get(base(name), _UNKNOWN)
    if plain(name) in METRICS or known is _UNKNOWN:
        return known
    ending = plain(name).removeprefix(base(name))
    return replace(known, title=known.title + BASELINES[ending], meaning="")


def head(name: str) -> dict[str, str]:
    """What stands before a row."""
    known = metric(name)
    title = known.title or plain(name).replace("_", " ")
    return {"name": name, "title": title, "meaning": known.meaning, "group": known.group}


def number(name: str, value: float, unit: bool = True, sign: bool = False) -> str:
    """A figure with its digits; sign: a difference, with + or - before it unless it rounds to 0."""
    known = metric(name)
    text = f"{value:{'+' if sign else ''}.{known.digits}f}"
    return (text if text.strip("+-0.") else text.lstrip("+-")) + (known.unit if unit else "")


def ordered(names: Iterable[str]) -> list[str]:
    """Plain names in the catalogue's order, each figure before its baselines, then those that it does not know."""
    place = {name: i for i, name in enumerate(METRICS)}
    return sorted(set(names), key=lambda n: (place.get(n, place.get(base(n), len(place))), n))


def better(name: str, entry: dict[str, Any]) -> bool | None:
    """Whether higher is better; None where neither is, as for a chance level."""
    return None if name.endswith(tuple(BASELINES)) else entry.get("higher_is_better")
