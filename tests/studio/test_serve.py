"""The command line of the studio, and a real server with several clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from ragaf_exp.studio.__main__ import main
from ragaf_exp.studio.app import Server
from ragaf_exp.studio.guard import access_for
from ragaf_exp.studio.jobs import Job
from ragaf_exp.studio.serve import listen
from tests.studio.conftest import TOKEN, events


@pytest.fixture
def address(worker, static):
    """The address of a server on a real socket."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    app = Server(worker, static).app(access_for("127.0.0.1", port, TOKEN))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def caller(address: str, name: str) -> httpx.Client:
    headers = {"x-studio-token": TOKEN, "origin": address, "x-studio-client": name}
    return httpx.Client(base_url=address, headers=headers, timeout=60)


def read_until(response: httpx.Response, kind: str) -> list[dict[str, Any]]:
    """The events of a stream up to the first one of a kind."""
    text = ""
    for piece in response.iter_text():
        text += piece
        whole = text[: text.rfind("\n\n") + 2]
        if f"event: {kind}\n" in whole:
            return events(whole)
    raise AssertionError(f"no event {kind} in {text[-300:]}")


def test_eight_clients_at_once_are_served_in_turn(address, worker, recipe, monkeypatch):
    monkeypatch.setattr(worker.jobs, "capacity", 7)
    results: dict[str, list[str]] = {}

    def visit(name: str) -> None:
        with caller(address, name) as client:
            job = client.post("/api/jobs", json={"recipe": recipe, "details": False}).json()["job"]
            results[name] = [event["event"] for event in events(client.get(f"/api/jobs/{job}/events").text)]

    threads = [threading.Thread(target=visit, args=(f"visitor-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 8 and all(kinds[-1] == "done" for kinds in results.values())


def test_a_stream_shows_steps_as_they_happen_and_resumes_after_a_lost_connection(address, recipe, monkeypatch):
    release, report = threading.Event(), Job.report

    def held(job: Job, kind: str, **data: Any) -> None:
        report(job, kind, **data)
        if kind == "step" and data["stage"] == 2:
            assert release.wait(60)

    monkeypatch.setattr(Job, "report", held)
    with caller(address, "first-visitor") as client:
        job = client.post("/api/jobs", json={"recipe": recipe}).json()["job"]
        with client.stream("GET", f"/api/jobs/{job}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            first = read_until(response, "step")
        assert first[-1]["event"] == "step" and not release.is_set()
        release.set()
        last = str(first[-1]["id"])
        rest = events(client.get(f"/api/jobs/{job}/events", headers={"last-event-id": last}).text)
    assert rest[0]["id"] == first[-1]["id"] + 1 and rest[-1]["event"] == "done"


def test_a_page_that_was_closed_stops_its_job(address, worker, recipe, monkeypatch):
    monkeypatch.setattr("ragaf_exp.studio.jobs.GRACE_S", 0.2)
    monkeypatch.setattr("ragaf_exp.studio.streams.HEARTBEAT_S", 0.05)
    report = Job.report

    def slow(job: Job, kind: str, **data: Any) -> None:
        report(job, kind, **data)
        if kind == "step":
            time.sleep(0.3)

    monkeypatch.setattr(Job, "report", slow)
    with caller(address, "first-visitor") as client:
        job = client.post("/api/jobs", json={"recipe": {**recipe, "steps": 20}}).json()["job"]
        with client.stream("GET", f"/api/jobs/{job}/events") as response:
            read_until(response, "started")
        limit = time.monotonic() + 20
        while worker.jobs.running is not None and time.monotonic() < limit:
            time.sleep(0.05)
        ended = events(client.get(f"/api/jobs/{job}/events").text)
    assert ended[-1]["event"] == "stopped" and sum(event["event"] == "step" for event in ended) < 10


@pytest.mark.parametrize("arguments, says", [
    (["run=nowhere"], "no such run folder"), (["run=R", "port=70000"], "port=70000"),
    (["run=R", "queue=0"], "queue=0"), (["run=R", "open=yes"], "open=yes"), (["run=R", "runs=nowhere"], "runs=nowhere"),
    (["run=R", "token=short"], "16 to 200"), (["run=R", "token=none", "host=0.0.0.0"], "this machine alone"),
    (["run=R", "token=none", "origin=https://a.example"], "this machine alone"),
    (["run=R", "origin=a.example"], "origin=a.example"),
    (["run=R", "origin=https://a.example/path"], "without a path"), (["run=R", "share=true"], "unknown argument"),
    (["run=R", "host=203.0.113.1"], "can't be listened at"),
])  # fmt: skip
def test_mistakes_on_the_command_line_are_one_line(refused, finished, arguments, says):
    refused(main, *(text.replace("run=R", f"run={finished}") for text in arguments), says=(says,))


def test_a_port_in_use_and_an_untrained_run_are_refused(refused, run_copy):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(main, f"run={run_copy}", f"port={port}", "open=false", says=("in use", "port=0"))
    status = json.loads((run_copy / "status.json").read_text())
    (run_copy / "status.json").write_text(json.dumps({**status, "trained": False}))
    refused(main, f"run={run_copy}", says=("unfinished",))


@pytest.mark.process
def test_the_server_starts_answers_and_ends_within_a_second(finished, tmp_path: Path):
    command = [sys.executable, "-m", "ragaf_exp.studio", f"run={finished}", "port=0", "open=false", f"token={TOKEN}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = line.split()[1].partition("/#")[0]
            assert line.startswith("studio  http://127.0.0.1:") and line.strip().endswith(f"#token={TOKEN}")
            with caller(address, "first-visitor") as client:
                limit = time.monotonic() + 240
                while (state := client.get("/api/about").json()["state"]) == "loading" and time.monotonic() < limit:
                    time.sleep(0.2)
                assert state == "ready"
            began = time.monotonic()
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(10) == 0 and time.monotonic() - began < 3  # 1 s on a quiet machine
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.process
def test_a_run_that_cannot_be_loaded_ends_the_server_with_one_line(run_copy):
    (run_copy / "tokenizer.json").write_text("{")
    command = [sys.executable, "-m", "ragaf_exp.studio", f"run={run_copy}", "port=0", "open=false"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 2 and ended.stderr.count("error: ") == 1 and "tokenizer.json" in ended.stderr
    assert "Traceback" not in ended.stderr
