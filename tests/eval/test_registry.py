"""The registry of metrics: it holds every figure, nothing else lists metrics, and an entry with a function is enough."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest

import eval.registry as registry
from eval.metrics.influence import FEWEST
from eval.networks import DISTANCES
from eval.registry import DIFFICULTY, GROUPS, HEADLINE, IMAGE, METRICS, SCENES, Metric, higher_is_better, metric_of
from ragaf_exp.commands import evaluate as command
from ragaf_exp.config.schema import METRICS as OPTIONS
from ragaf_exp.report.catalogue import base, metric, ordered, plain
from ragaf_exp.report.run import tables

ROOT = Path(__file__).parents[2]
LISTS = {  # what a metric's network is, what a metric claims to detect, options of eval.metrics
    "eval/networks.py": ("DISTANCES",), "eval/damage.py": ("DAMAGES", "EVERYWHERE"),
    "ragaf_exp/config/schema.py": ("METRICS",), "ragaf_exp/evaluation/painting/measure.py": ("SHOWN",),
}  # fmt: skip


def darkness(image: np.ndarray, reference: np.ndarray) -> float:
    """A metric that no version has: by how much an image is darker than its reference, of 1."""
    return float(reference.mean() - image.mean()) / 255


DARKNESS = Metric("darkness", "Darkness", "how much darker than the truth", IMAGE, higher_is_better=False,
                  grouped_by=(DIFFICULTY,), shown=(HEADLINE,), share=False, score=f"{__name__}:darkness")  # fmt: skip


@pytest.mark.long
def test_a_metric_is_one_entry_and_one_function(run_copy, monkeypatch, cli):
    monkeypatch.setitem(METRICS, DARKNESS.name, DARKNESS)
    for room in ("CARDS", "COLUMNS"):  # the page shows the first six otherwise
        monkeypatch.setattr(tables, room, 20)
    status, out, err = cli(command.main, f"run={run_copy}")
    assert status == 0, err
    content = json.loads((run_copy / "metrics.json").read_text())
    entry = content["metrics"]["darkness"]
    assert entry["higher_is_better"] is False and entry["n"] == 4 and "stage1/darkness" in content["metrics"]
    assert all("darkness" in group["metrics"] for group in content["groups"]["regions"]["groups"])
    assert "\ndarkness " in out
    page = (run_copy / "report.html").read_text()
    assert page.count("Darkness") == 3 and "how much darker than the truth" in page, "a card, a row, a column"


def test_every_figure_of_a_run_is_registered(finished):
    metrics = json.loads((finished / "metrics.json").read_text())["metrics"]
    for name, entry in metrics.items():
        assert entry["higher_is_better"] is higher_is_better(plain(name))
        assert entry["n"] >= metric_of(plain(name)).min_n
        assert metric(name).title


def test_entries_are_sound():
    names = [name for known in METRICS.values() for name in (known.name, *known.chance)]
    assert len(names) == len(set(names)) and list(METRICS) == [known.name for known in METRICS.values()]
    places = {*registry.MAIN, registry.RATIO}
    for known in METRICS.values():
        assert known.title and known.meaning and known.group in GROUPS, known.name
        assert set(known.shown) <= places and set(known.grouped_by) <= {DIFFICULTY, SCENES}, known.name
    of_sets = {name for name, known in METRICS.items() if known.min_n > 1}
    assert of_sets == {name for names in DISTANCES.values() for name in names} == set(OPTIONS) & of_sets
    assert set(OPTIONS) <= METRICS.keys() | {"clip", "region_clip"}, "these two measure several"
    assert all(known.min_n in (1, FEWEST) for known in METRICS.values())
    with pytest.raises(KeyError, match="nothing: no such metric"):
        higher_is_better("nothing")


def test_chance_levels_follow_their_metrics():
    assert base("region_clip_chance") == "region_clip_accuracy" and base("stage1/chamfer_shuffled") == "chamfer"
    assert metric("chamfer_shuffled").title == "Chamfer distance, chance" and metric("chamfer_shuffled").digits == 4
    assert metric("region_clip_chance").meaning == "the same by guessing"
    assert not higher_is_better("chamfer_shuffled") and higher_is_better("pointing_accuracy_uniform")
    names = ["unknown", "psnr", "region_clip_chance", "sketch_f1_shuffled", "region_clip_accuracy", "sketch_f1"]
    in_order = ["region_clip_accuracy", "region_clip_chance", "sketch_f1", "sketch_f1_shuffled", "psnr", "unknown"]
    assert ordered(names) == in_order


@pytest.mark.parametrize("where", sorted(registry.MAIN))
def test_every_place_shows_something(where, monkeypatch):
    before = registry.shown(where)
    assert len(before) > 1
    monkeypatch.setitem(METRICS, "darkness", Metric("darkness", "Darkness", "darker", IMAGE, shown=(where,)))
    assert registry.shown(where) == [*before, "darkness"]


def test_no_other_file_lists_metrics():
    """Constants of modules with the names of three metrics or more."""
    lists = []
    for path in [*ROOT.glob("eval/**/*.py"), *ROOT.glob("ragaf_exp/**/*.py")]:
        file = path.relative_to(ROOT).as_posix()
        constants = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign | ast.AnnAssign))
        for node in constants if file != "eval/registry.py" else ():
            listed = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} & METRICS.keys()
            target = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            if len(listed) >= 3 and target not in LISTS.get(file, ()):
                lists.append(f"{file}: {target}")
    assert not lists
