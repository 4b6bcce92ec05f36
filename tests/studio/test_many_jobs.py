"""Many jobs and many clients: memory stays flat, each client is served in turn, and the queue is bounded."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from ragaf_exp.studio.worker import Worker
from tests.studio.conftest import client_of, events

pytestmark = pytest.mark.long
WARM, MEASURED = 20, 100  # jobs
GROWTH = 0.05  # of the memory after the first jobs


def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


@pytest.mark.timeout(900)
def test_memory_is_flat_over_a_hundred_jobs(finish: Callable, recipe: dict[str, Any]) -> None:
    """Each job has steps, attention and fusion; the newest that ended stay, which the first jobs fill in part."""
    for seed in range(WARM):
        finish({**recipe, "seed": seed})
    before = resident()
    for seed in range(WARM, WARM + MEASURED):
        assert finish({**recipe, "seed": seed})[-1]["event"] == "done"
    after = resident()
    assert after <= before * (1 + GROWTH), f"{before / 2**20:.0f} MiB grew to {after / 2**20:.0f} MiB"


def test_eight_clients_are_served_in_turn_and_a_ninth_is_refused(worker: Worker, static, recipe, monkeypatch) -> None:
    gate, order = threading.Event(), list[str]()
    attempt = worker.studio.attempt

    def gated(job: Any) -> None:
        gate.wait(60)
        order.append(job.client)
        attempt(job)

    monkeypatch.setattr(worker.studio, "attempt", gated)
    monkeypatch.setattr(worker.jobs, "capacity", 7)
    ahead, last = dict[str, int](), dict[str, dict]()
    posted = threading.Barrier(9, timeout=60)

    def client(name: str) -> None:
        own = client_of(worker, static)
        own.headers["x-studio-client"] = name
        answer = own.post("/api/jobs", json={"recipe": recipe, "details": False})
        assert answer.status_code == 202, answer.text
        ahead[name] = answer.json()["ahead"]
        posted.wait()
        last[name] = events(own.get(f"/api/jobs/{answer.json()['job']}/events").text)[-1]

    threads = [threading.Thread(target=client, args=(f"client-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    posted.wait()
    ninth = client_of(worker, static)
    ninth.headers["x-studio-client"] = "client-9"
    refused = ninth.post("/api/jobs", json={"recipe": recipe})
    gate.set()
    for thread in threads:
        thread.join(120)
    assert refused.status_code == 429 and "jobs are waiting" in refused.json()["error"]
    assert sorted(ahead.values()) == list(range(8))
    assert order == sorted(ahead, key=lambda name: ahead[name])
    assert len(last) == 8 and all(event["event"] == "done" for event in last.values())
    assert ninth.post("/api/jobs", json={"recipe": recipe, "details": False}).status_code == 202  # there is room again
