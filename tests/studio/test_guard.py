"""Access to the studio's server: hosts, origins, the token, limits, headers, and files of the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ragaf_exp.studio.guard import MAX_BODY, access_for
from ragaf_exp.studio.jobs import Jobs
from ragaf_exp.studio.worker import Worker
from tests.studio.conftest import TOKEN, client_of


@pytest.fixture
def early(static: Path) -> TestClient:
    """A server whose run is not loaded yet."""
    return client_of(Worker(Path("nowhere"), Jobs(1)), static)


def error(answer) -> str:
    """The error of an answer, which is a single line and the only content."""
    content = answer.json()
    assert list(content) == ["error"] and "\n" not in content["error"], content
    return content["error"]


def test_the_page_shows_before_the_run_is_loaded(early):
    assert "page" in early.get("/", headers={"x-studio-token": ""}).text
    about = early.get("/api/about").json()
    assert about["state"] == "loading" and about["run"] is None and about["progress"] == 0
    answer = early.post("/api/regions", content=b"")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1" and "try again" in error(answer)


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", "é"])
def test_the_interface_needs_the_token(early, token):
    answer = early.get("/api/about", headers={"x-studio-token": token.encode()})
    assert answer.status_code == 401 and "token" in error(answer)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1", "127.0.0.1:80", ""])
def test_a_rebound_host_is_refused_even_for_the_page(early, host):
    for path in ("/", "/api/about"):
        assert early.get(path, headers={"host": host}).status_code == 403
    assert early.get("/", headers={"host": "LOCALHOST:7860"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:7861", "https://127.0.0.1:7860"])
def test_requests_from_another_site_are_refused(early, origin):
    for method in ("POST", "DELETE", "PUT"):
        assert early.request(method, "/api/jobs", headers={"origin": origin}).status_code == 403


def test_a_body_that_is_too_large_is_refused(early):
    answer = early.post("/api/regions", content=b"x" * (MAX_BODY + 1))
    assert answer.status_code == 413 and "8 MB" in error(answer)
    lying = early.post("/api/regions", content=b"x", headers={"content-length": "-1"})
    assert lying.status_code == 413


def test_a_chunked_body_is_counted_while_it_is_received(early):
    def chunks():
        for _ in range(MAX_BODY // 2**20 + 1):
            yield b"x" * 2**20

    answer = early.post("/api/regions", content=chunks())
    assert answer.status_code == 413 and "8 MB" in error(answer)


def test_every_response_has_the_security_headers(early):
    for answer in (early.get("/"), early.get("/api/about"), early.get("/api/nothing"),
                   early.get("/", headers={"host": "evil.example"})):  # fmt: skip
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer" and "set-cookie" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", [
    "/static/../secret.txt", "/static/%2e%2e/secret.txt", "/static/..%2fsecret.txt", "/static//etc/passwd",
    "/static/parts/../../secret.txt", "/static/parts", "/static/%00", "/secret.txt", "/api/nothing",
])  # fmt: skip
def test_only_files_of_the_page_are_served(early, path):
    answer = early.get(path)
    assert answer.status_code == 404 and "secret" not in answer.text.replace("secret.txt", "")
    assert error(answer)


def test_modules_have_a_type_that_browsers_run(early):
    answer = early.get("/static/parts/draw.mjs")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/javascript")


def test_the_wrong_method_is_an_error_in_json(early):
    assert early.post("/api/about").status_code == 405 and error(early.post("/api/about"))


def test_a_proxy_has_its_origin_and_other_addresses_their_names():
    behind = access_for("127.0.0.1", 7860, TOKEN, "https://studio.example")
    assert "studio.example" in behind.hosts and "https://studio.example" in behind.origins
    assert "127.0.0.1:7860" in behind.hosts and "[::1]:7860" in behind.hosts
    everywhere = access_for("0.0.0.0", 80, TOKEN)
    assert {"127.0.0.1:80", "127.0.0.1"} <= everywhere.hosts and "0.0.0.0:80" not in everywhere.hosts
