"""The benchmarks of the evaluation, small."""

from __future__ import annotations

import pytest

from eval.metrics.distances import frechet, moments
from ragaf_exp.commands.benches import evaluation


def test_the_distance_is_timed_next_to_its_reference(monkeypatch):
    compared = []
    usual = evaluation._by_eigenvalues

    def recorded(*sets):
        compared.append((usual(*sets), sets))
        return compared[-1][0]

    monkeypatch.setattr(evaluation, "_by_eigenvalues", recorded)
    rows = evaluation.frechet_distance(images=60, features=8)
    assert [row["name"] for row in rows] == ["frechet/distance", "frechet/distance_with_interval"]
    assert all(row["value"] > 0 and row["reference"] > 0 and row["unit"] == "s" for row in rows)
    value, (first, second) = compared[0]
    assert value == pytest.approx(frechet(*moments(first), *moments(second)), rel=1e-3), "the same quantity"


def test_sketch_fidelity_is_timed_next_to_its_reference(monkeypatch):
    monkeypatch.setattr(evaluation, "COUNT", 4)
    monkeypatch.setattr(evaluation, "SIDE", 64)
    rows = evaluation.sketch_fidelity()
    assert [row["name"] for row in rows] == ["sketch_fidelity/scenes", "sketch_fidelity/photos"]
    assert all(row["value"] > 0 and row["reference"] > 0 and row["unit"] == "images/s" for row in rows)
