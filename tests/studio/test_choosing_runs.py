"""Another run is loaded for the studio: after the jobs that wait, and the old one stays where that fails."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from studio_worker import loaded

from ragaf_exp.studio.worker import Worker
from tests.studio.conftest import client_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def two(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Path]]:
    """A studio with a run, and the folder of its gallery, which has a whole and a damaged copy."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(finished, root / "other" / "0123456789ab")
    damaged = shutil.copytree(finished, root / "damaged" / "abcdef012345")
    shutil.rmtree(damaged / "checkpoints")
    with loaded(finished, root) as worker:
        yield worker, root


@pytest.fixture
def client(two: tuple[Worker, Path], static: Path) -> TestClient:
    return client_of(two[0], static)


def choose(client: TestClient, name: str | None) -> dict:
    """Choose a run by the name of its experiment, and wait until a run is loaded; returns /api/about."""
    listed = {run["name"].partition("/")[0]: run["id"] for run in client.get("/api/gallery").json()["runs"]}
    answer = client.post("/api/run", json={"run": None if name is None else listed[name]})
    assert answer.status_code == 202, answer.text
    end = time.monotonic() + 120
    while (about := client.get("/api/about").json())["state"] == "loading" and time.monotonic() < end:
        assert about["run"] is None  # the page must not take the old run's size
        time.sleep(0.05)
    return about


def test_another_run_is_loaded_and_the_first_one_again(client):
    assert client.get("/api/about").json()["first"]
    about = choose(client, "other")
    assert (about["state"], about["run"]["name"], about["first"]) == ("ready", "other/0123456789ab", False)
    about = choose(client, None)
    assert about["run"]["name"].startswith("tiny/") and about["first"]


def test_a_run_that_cannot_be_loaded_leaves_the_one_before(client):
    about = choose(client, "damaged")
    assert about["state"] == "ready" and about["run"]["name"].startswith("tiny/")
    assert "damaged" in about["notice"] or "abcdef012345" in about["notice"]
    assert "\n" not in about["notice"]
    assert choose(client, "other")["notice"] == ""
    choose(client, None)


def test_jobs_that_were_added_before_are_done_by_the_old_run(client, two, recipe):
    worker, _ = two
    job = client.post("/api/jobs", json={"recipe": {**recipe, "steps": 20}}).json()["job"]
    choose(client, "other")
    done = worker.jobs.get(job, "first-client")
    assert done is not None and done.events[-1].kind == "done"
    assert done.events[-1].data["recipe"]["run"]["name"].startswith("tiny/")
    choose(client, None)


@pytest.mark.parametrize("body", ['{"run": 3}', '{"run": ["a"]}', "[]", "x", '{"run": "../../etc"}', '{"run": "0"}'])
def test_other_requests_are_refused(client, body):
    assert client.post("/api/run", content=body).status_code in (400, 404)
    assert client.get("/api/about").json()["state"] == "ready"
