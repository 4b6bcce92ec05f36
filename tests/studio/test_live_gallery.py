"""The gallery of a study while one of its runs trains: each request shows the log as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from growing_runs import log, state, study_of
from starlette.testclient import TestClient

from ragaf_exp.studio.gallery import Gallery
from ragaf_exp.studio.jobs import Jobs
from ragaf_exp.studio.worker import Worker
from tests.studio.conftest import client_of


@pytest.fixture
def growing(finished: Path, tmp_path: Path) -> Path:
    return study_of(finished, tmp_path / "runs")


@pytest.fixture
def client(growing: Path, static: Path) -> TestClient:
    """A server that has a gallery and no loaded run."""
    worker = Worker(Path("nowhere"), Jobs(1), runs=growing.parents[1])
    worker.gallery = Gallery(growing.parents[1])
    return client_of(worker, static)


def study(client: TestClient) -> dict[str, Any]:
    (listed,) = client.get("/api/gallery").json()["studies"]
    return client.get(f"/api/gallery/{listed['id']}").json()["members"]


def points(members: dict[str, Any], run: str) -> list[list[float]]:
    series = {each["name"]: each["points"] for each in members["curves"][0]["series"]}
    identity = next(row["id"] for row in members["rows"] if row["state"] == run)
    (named,) = [value for name, value in series.items() if f"({identity[:4]})" in name]
    return named


def test_a_study_has_the_state_and_the_grid_of_each_run(client):
    rows = study(client)["rows"]
    assert sorted(row["state"] for row in rows) == ["finished", "running"]
    assert all(row["picture"] == "test/grid.png" and row["updated"] > 0 for row in rows)


def test_curves_of_a_study_grow_with_the_log(client, growing):
    before = points(study(client), "running")
    log(growing, 12, validation={"binding_accuracy": 0.5})
    after = points(study(client), "running")
    assert after[:-1] == before and after[-1][1] == 0.5 and after[-1][0] > before[-1][0]
    assert points(study(client), "finished") == before


def test_a_line_that_is_being_written_waits_for_its_end(client, growing):
    before = points(study(client), "running")
    log(growing, 12, end="", validation={"binding_accuracy": 0.5})
    assert points(study(client), "running") == before
    identity = next(row["id"] for row in study(client)["rows"] if row["state"] == "running")
    assert client.get(f"/api/gallery/{identity}").json()["curves"]


def test_a_run_without_any_line_is_listed(client, growing):
    (growing / "metrics.jsonl").write_text("")
    shutil.rmtree(growing / "samples")
    rows = {row["state"]: row for row in study(client)["rows"]}
    assert rows["running"]["picture"] is None and rows["running"]["headline"] == []


def test_the_state_follows_the_run(client, growing):
    state(growing, state="failed", error="the loss is not finite")
    listed = {run["state"]: run for run in client.get("/api/gallery").json()["runs"]}
    assert listed["failed"]["error"] == "the loss is not finite"
    state(growing, updated=0, state="running")
    assert {run["state"] for run in client.get("/api/gallery").json()["runs"]} == {"finished", "stopped"}


def test_only_trained_runs_can_be_chosen(client, growing):
    """A run is named by its id, never by a path; the loading itself is tested in the page."""
    refused = client.post("/api/run", json={"run": "0123456789ab"})
    assert refused.status_code == 503  # nothing is loaded here
    gallery = Gallery(growing.parents[1])
    runs = {run["state"]: run for run in gallery.listed()["runs"]}
    assert [runs[name]["trained"] for name in ("finished", "running")] == [True, False]
    assert gallery.trained(runs["finished"]["id"]) == growing.parent / "0123456789ab"
    with pytest.raises(Exception, match="not trained to the end"):
        gallery.trained(runs["running"]["id"])
    assert gallery.trained(json.dumps("../..")) is None
