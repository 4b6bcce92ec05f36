"""Access control of the studio's server, as ASGI middleware.

Other websites in the same browser can send requests to a local server. The Host header must name this server, which
defeats DNS rebinding; requests that change something need this server's Origin, which defeats cross-site requests; and the
interface needs a token in a header that no other site knows.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 8 * 2**20  # bytes of a request
TOO_LARGE = f"the request is larger than {MAX_BODY // 2**20} MB; send a smaller picture"
TOKEN_HEADER = "x-studio-token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
)  # fmt: skip


@dataclass(frozen=True)
class Access:
    """The conditions of access: the names under which the server is reached, its origins, and the token ("" = none)."""

    hosts: frozenset[str]
    origins: frozenset[str]
    token: str


def access_for(host: str, port: int, token: str, origin: str = "") -> Access:
    """List the names and origins of a server.

    Args:
        host: The address that it listens at.
        port: Its port.
        token: The token; "" = none needed.
        origin: The origin of a proxy in front of it, such as https://studio.example; "" = none.
    """
    names = {f"[{name}]" if ":" in name else name for name in _names(host)}
    hosts = {f"{name}:{port}" for name in names} | (names if port == 80 else set())
    origins = {f"http://{name}" for name in hosts}
    if origin:
        hosts.add(urlsplit(origin).netloc.lower())
        origins.add(origin.lower())
    return Access(frozenset(hosts), frozenset(origins), token)


def _names(host: str) -> Iterable[str]:
    """All names of a server; one that listens at every address has those of the machine's interfaces."""
    if host in LOOPBACK:
        return LOOPBACK
    if host not in ("0.0.0.0", "::"):
        return (host.lower(),)
    addresses = (address.address for listed in psutil.net_if_addrs().values() for address in listed)
    return {*LOOPBACK, *(address.partition("%")[0].lower() for address in addresses)}


class Guard:
    """Refuses requests without access and bodies over MAX_BODY, and adds security headers to every response.

    It is written as plain ASGI, since Starlette's own middleware class would buffer streams.
    """

    def __init__(self, app: ASGIApp, access: Access):
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # there are no web sockets here
            return await send({"type": "websocket.close", "code": 1008})
        sending = _with_headers(send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._refusal(scope["method"], scope["path"], headers):
            status, reason = refusal
            return await JSONResponse({"error": reason}, status)(scope, receive, sending)
        await self.app(scope, _limited(receive), sending)

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        if headers.get("host", "").lower() not in self.access.hosts:
            return 403, "this server does not answer to that host name; open the address that the studio printed"
        if method not in ("GET", "HEAD") and headers.get("origin", "").lower() not in self.access.origins:
            return 403, "requests from other websites are refused; open the address that the studio printed"
        given = headers.get(TOKEN_HEADER, "")
        if path.startswith("/api/") and not secrets.compare_digest(given.encode(), self.access.token.encode()):
            return 401, "the token is missing or wrong; open the address that the studio printed"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return 413, TOO_LARGE
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return sending


def _limited(receive: Receive) -> Receive:
    """Count the bytes of a body while it is received: a chunked one states no length. Raises HTTPException."""
    total = 0

    async def receiving() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_BODY:
            raise HTTPException(413, TOO_LARGE)
        return message

    return receiving
