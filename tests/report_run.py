"""Small finished run folders for the report's tests."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from eval.items import ItemRow, add_values, figure_of, write_items
from ragaf_exp.config.compose import compose_config

PICTURES = ("sketch", "regions", "stage1", "stage2", "truth", "attention")


@functools.cache
def config() -> str:
    """The defaults, resolved."""
    return OmegaConf.to_yaml(compose_config([]), resolve=True)


def build(place: Path) -> Path:
    """A run of both stages under `place`, with every file that a report reads."""
    folder = place / "demo" / "0123456789ab"
    scene = folder / "samples" / "test" / "one"
    scene.mkdir(parents=True)
    (folder / "config.yaml").write_text(config())
    dump(
        folder / "environment.json",
        {"commit": "c0ffee" * 6, "device": "cpu", "command": ["run.py", "seed=3"]},
    )
    dump(folder / "status.json", {"schema": 1, "state": "done", "trained": True, "error": None})
    dump(folder / "metrics.json", {"schema": 1, "metrics": metrics()})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log()))
    dump(
        folder / "samples/fusion.json",
        {"timesteps": [0, 500, 999], "sketch": [0.1, 0.5, 0.9], "text": [0.9, 0.5, 0.1]},
    )
    for name in PICTURES:
        picture(scene / f"{name}.png")
    for name in ("coarse-100", "refine-9", "refine-100"):
        picture(folder / "samples" / f"{name}.png")
    objects = [
        {"phrase": "a red star", "wanted": "red", "found": "red", "correct": True},
        {"phrase": "a blue star", "wanted": "blue", "found": "orange", "correct": False},
    ]
    entry = {"key": "one", "caption": "a red star above a blue star", "dir": "one", "objects": objects}
    dump(folder / "samples/test/index.json", [entry])
    return folder


def dump(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def picture(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(path)


def metrics() -> dict:
    def entry(value: float, n: int) -> dict:
        return {
            "value": value,
            "n": n,
            "ci95": [value - 0.01, value + 0.01],
            "higher_is_better": True,
            "weights": "ema",
        }

    return {
        "binding_accuracy": entry(0.951, 384), "stage1/binding_accuracy": entry(0.412, 384),
        "sketch_f1": entry(0.876, 200), "sketch_f1_shuffled": entry(0.169, 200), "psnr": entry(21.34, 200),
        "something_new": entry(3.25, 200),
    }  # fmt: skip


def log() -> list[dict]:
    rows = []
    for stage in ("coarse", "refine"):
        for step in range(10, 110, 10):
            rows.append({"stage": stage, "step": step, "loss": 1 / step, "loss_diffusion": 0.5 / step, "rate": 2.0})
        rows.append({"stage": stage, "step": 100, "validation": {"right": 0.1, "text_shuffled": 0.25}})
    return rows


FACTS = {"weights": "ema", "seed": 0, "split": "test", "resolution": 64}


def member(
    place: Path, name: str = "0" * 12, shift: float = 0.0, keys: range = range(20), facts: dict | None = None,
    settings: dict | None = None, sketch: str = "drawn", items: bool = True, experiment: str = "study",
    whole: dict | None = None,
) -> Path:  # fmt: skip
    """A finished run for comparisons: SSIM is `shift` above what each item would have, and from a shift of 0.1 on every
    object is bound. facts are stored with every figure, `whole` with that of the whole set; settings are keys of
    the config that differ.
    """
    folder = place / experiment / name
    scene = folder / "samples" / "test" / "0000"
    scene.mkdir(parents=True)
    config_of = OmegaConf.create(config())
    for key, value in (settings or {}).items():
        OmegaConf.update(config_of, key, value)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config_of))
    dump(folder / "environment.json", {"commit": "c0ffee", "device": "cpu", "python": "3.11"})
    dump(folder / "status.json", {"schema": 1, "state": "done", "trained": True, "error": None})
    rows = item_rows(keys, shift, sketch)
    known = FACTS | (facts or {})
    entries = {name: figure_of(rows, name, higher_is_better=True, resamples=50, **known) for name in rows[0].values}
    entries["fd_embedded"] = {"value": 12.5 - shift, "n": len(rows), "higher_is_better": False, **known, **(whole or {})}
    dump(folder / "metrics.json", {"schema": 1, "metrics": entries})
    if items:
        write_items(folder / "items.jsonl", rows)
    for name in ("sketch", "stage1", "stage2", "truth"):
        picture(scene / f"{name}.png")
    objects = [{"phrase": "a red star", "wanted": "red", "found": "blue", "correct": shift >= 0.1}]
    entry = {"key": f"k{keys[0]}", "caption": "a red star", "dir": "0000", "objects": objects}
    dump(folder / "samples/test/index.json", [entry])
    return folder


def item_rows(keys: range, shift: float, sketch: str) -> list[ItemRow]:
    rows = [ItemRow(f"k{i}", f"image{i}", sketch, 0.01 * i, i % 5, [0.1, 0.2]) for i in keys]
    add_values(rows, "stage1/ssim", [0.2 + i / 100 for i in keys])
    add_values(rows, "ssim", [0.3 + (i * 7 % 20) / 40 + shift for i in keys])
    add_values(rows, "sketch_f1", [0.5 + (i * 3 % 20) / 50 + shift for i in keys])
    add_values(rows, "binding_accuracy", [[1.0, float(i % 3 == 0 or shift >= 0.1)] for i in keys])
    return rows
