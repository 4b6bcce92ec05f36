"""The queue of the studio, without a model."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from ragaf_exp.inference.recipes import SketchRecipe
from ragaf_exp.studio import jobs as module
from ragaf_exp.studio.events import Picture
from ragaf_exp.studio.jobs import Busy, Job, Jobs

EMPTY = SketchRecipe(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.int16))


def job(client: str) -> Job:
    return Job(client, EMPTY, True)


def test_jobs_are_served_in_order_and_the_queue_is_bounded():
    queue = Jobs(2)
    first, second, third = (job(name) for name in "abc")
    assert queue.add(first) == 0 and queue.take(0) is first
    assert queue.add(second) == 1 and queue.add(third) == 2
    with pytest.raises(Busy, match="2 jobs are waiting"):
        queue.add(job("d"))
    queue.finish(first)
    assert queue.take(0) is second
    queue.finish(second)
    assert queue.take(0) is third and queue.take(0) is None
    ahead = [event.data["ahead"] for event in third.events]
    assert ahead == sorted(ahead, reverse=True) and ahead[0] == 2 and len(set(ahead)) == len(ahead)


def test_a_client_has_one_job_at_a_time():
    queue = Jobs(4)
    first = job("a")
    queue.add(first)
    with pytest.raises(Busy, match="stop it first"):
        queue.add(job("a"))
    assert queue.take(0) is first
    with pytest.raises(Busy):
        queue.add(job("a"))
    first.report("done")  # the page may ask for the next one before the worker has put the first away
    queue.add(job("a"))
    queue.finish(first)


def test_another_clients_job_is_not_visible():
    queue = Jobs(4)
    mine = job("a")
    queue.add(mine)
    assert queue.get(mine.id, "a") is mine and queue.get(mine.id, "b") is None and queue.get("0" * 32, "a") is None
    queue.finish(queue.take(0))
    assert queue.get(mine.id, "a") is mine and queue.get(mine.id, "b") is None


def test_a_stopped_job_leaves_the_queue_at_once():
    queue = Jobs(1)
    waiting = job("a")
    queue.add(waiting)
    assert queue.stop(waiting) and waiting.events[-1].kind == "stopped" and not queue.stop(waiting)
    queue.add(job("b"))
    assert queue.take(0).client == "b"


def test_a_job_without_a_listener_counts_as_a_closed_page(monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 0.05)
    queue = Jobs(4)
    left, heard = job("a"), job("b")
    queue.add(left)
    queue.add(heard)

    async def listen() -> None:
        wake = heard.listen()
        await asyncio.sleep(0.1)
        assert left.stopped() and not heard.stopped()
        assert queue.take(0) is heard and left.events[-1].kind == "stopped"
        heard.leave(wake)
        await asyncio.sleep(0.1)
        assert heard.stopped()

    asyncio.run(listen())


def test_ended_jobs_go_by_age_number_and_size(monkeypatch):
    queue = Jobs(1)

    def run(name: str, size: int = 0) -> Job:
        one = job(name)
        queue.add(one)
        queue.take(0)
        one.report("step", image=Picture(bytes(size)))
        one.report("stopped")
        queue.finish(one)
        return one

    monkeypatch.setattr(module, "MOST_JOBS", 3)
    ended = [run(str(i)) for i in range(5)]
    assert [queue.get(one.id, one.client) is not None for one in ended] == [False, False, True, True, True]
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    large = run("large", 2000)
    assert queue.get(large.id, "large") is large and queue.get(ended[-1].id, "4") is None
    monkeypatch.setattr(module, "LIFETIME_S", 0.0)
    time.sleep(0.01)
    assert queue.get(large.id, "large") is None


def test_no_event_follows_the_last_one():
    one = job("a")
    one.report("done")
    one.report("error", error="late")
    assert [event.kind for event in one.events] == ["done"]


def test_a_waiting_stream_wakes_from_another_thread():
    one = job("a")

    async def listen() -> str:
        wake = one.listen()
        threading.Timer(0.02, one.report, ["started"]).start()
        await asyncio.wait_for(wake.wait(), 5)
        one.leave(wake)
        return one.events[-1].kind

    assert asyncio.run(listen()) == "started" and one.listeners == 0
