"""A studio on the finished tiny run, with a client that has access."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("starlette", reason="the studio's packages are not installed; pip install 'ragaf_exp[studio]'")
from starlette.testclient import TestClient
from studio_worker import loaded

from ragaf_exp.data.uploads import png
from ragaf_exp.studio.app import Server
from ragaf_exp.studio.guard import access_for
from ragaf_exp.studio.worker import Worker

TOKEN = "a-token-of-the-tests"
ORIGIN = "http://127.0.0.1:7860"
HEADERS = {"x-studio-token": TOKEN, "origin": ORIGIN, "x-studio-client": "first-client"}


def client_of(worker: Worker, static: Path) -> TestClient:
    app = Server(worker, static).app(access_for("127.0.0.1", 7860, TOKEN))
    return TestClient(app, ORIGIN, headers=HEADERS, raise_server_exceptions=False)


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studio") / "static"
    (folder / "parts").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "parts" / "draw.mjs").write_text("export const drawn = 1")
    (folder.parent / "secret.txt").write_text("secret")
    return folder


@pytest.fixture(scope="session")
def worker(finished: Path) -> Iterator[Worker]:
    """A studio that has loaded the finished run; its gallery shows that run."""
    with loaded(finished, finished.parents[1]) as worker:
        yield worker


@pytest.fixture
def client(worker: Worker, static: Path) -> TestClient:
    return client_of(worker, static)


@pytest.fixture(scope="session")
def drawing() -> bytes:
    """A circle and a square, as a PNG of 256x256."""
    picture = np.full((256, 256, 3), 255, np.uint8)
    cv2.circle(picture, (80, 128), 50, (0, 0, 0), 6)
    cv2.rectangle(picture, (150, 80), (230, 180), (0, 0, 0), 6)
    return png(picture)


@pytest.fixture
def recipe(client: TestClient, drawing: bytes) -> dict[str, Any]:
    """A recipe of the drawing, with a prompt for each of its shapes."""
    regions = client.post("/api/regions", content=drawing).json()
    prompts = [{}, {"prompt": "red"}, {"prompt": "blue"}]
    return {"schema": 1, "kind": "sketch", **{key: regions[key] for key in ("width", "height", "sketch", "labels")},
            "caption": "a mint background", "regions": prompts, "steps": 2}  # fmt: skip


@pytest.fixture
def finish(client: TestClient) -> Callable[..., list[dict[str, Any]]]:
    """finish(recipe, details=True) runs a job to its end and returns its events."""

    def call(recipe: dict[str, Any], details: bool = True) -> list[dict[str, Any]]:
        answer = client.post("/api/jobs", json={"recipe": recipe, "details": details})
        assert answer.status_code == 202, answer.text
        identity = answer.json()["job"]
        return [{**event, "job": identity} for event in events(client.get(f"/api/jobs/{identity}/events").text)]

    return call


def events(stream: str) -> list[dict[str, Any]]:
    """The events of a stream, each with its id and its data."""
    listed = []
    for block in stream.strip().split("\n\n"):
        if not block.startswith(":"):
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            listed.append({"id": int(fields["id"]), "event": fields["event"], **json.loads(fields["data"])})
    return listed
