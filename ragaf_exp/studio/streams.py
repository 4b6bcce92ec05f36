"""Server-sent events of a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import StreamingResponse

from ragaf_exp.studio.jobs import Job

HEARTBEAT_S = 2.0  # a comment is sent so often, by which a closed connection is noticed


def stream(request: Request, job: Job) -> StreamingResponse:
    """Stream a job's events: all of them, or those after the header Last-Event-ID."""
    last = request.headers.get("last-event-id", "")
    begin = int(last) if last.isdecimal() and len(last) < 10 else 0
    return StreamingResponse(_events(request, job, begin), media_type="text/event-stream")


async def _events(request: Request, job: Job, begin: int) -> AsyncIterator[bytes]:
    """Yield encoded events, numbered from 1, until the last one."""
    wake, sent = job.listen(), begin
    try:
        while True:
            wake.clear()
            while sent < len(job.events):
                sent += 1
                yield job.events[sent - 1].encoded(sent)
            if job.ended is not None and sent >= len(job.events):
                return
            try:
                await asyncio.wait_for(wake.wait(), HEARTBEAT_S)
            except asyncio.TimeoutError:
                if await request.is_disconnected():
                    return
                yield b": waiting\n\n"
    finally:
        job.leave(wake)
