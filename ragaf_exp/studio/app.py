"""The routes of the studio's server.

Importing this takes a fraction of a second, so that the page shows while the run is still being loaded.
"""

from __future__ import annotations

import gzip
import mimetypes
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.printable import printable
from ragaf_exp.data.uploads import read_object
from ragaf_exp.inference.recipes import parse_recipe
from ragaf_exp.studio.guard import Access, Guard
from ragaf_exp.studio.jobs import Busy, Job
from ragaf_exp.studio.streams import stream
from ragaf_exp.studio.worker import Worker

STATIC = Path(__file__).parent / "static"  # the page
INDEX = "index.html"
CLIENT_HEADER = "x-studio-client"
CLIENT = re.compile(r"[A-Za-z0-9_-]{8,64}")
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".webp": "image/webp", ".svg": "image/svg+xml"}


class Server:
    """The handlers of the routes.

    Args:
        worker: Loads the run and works on the jobs.
        static: The folder of the page. Its files are listed once; no other file is ever served.
    """

    def __init__(self, worker: Worker, static: Path = STATIC):
        self.worker, self.jobs = worker, worker.jobs
        self.files = {path.relative_to(static).as_posix(): path for path in static.rglob("*") if path.is_file()}

    def app(self, access: Access) -> Guard:
        """Make the ASGI application."""
        handlers: dict[type[Exception] | int, Any] = {
            UserError: _bad_request, HTTPException: _http_error, Exception: _internal_error,
        }  # fmt: skip
        return Guard(Starlette(routes=self.routes(), exception_handlers=handlers), access)

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/", partial(self.page, name=INDEX)),
            Route("/favicon.ico", partial(self.page, name="favicon.svg")),
            Route("/static/{name:path}", self.page),
            Route("/api/about", self.about),
            Route("/api/regions", self.regions, methods=["POST"]),
            Route("/api/edit", self.edit, methods=["POST"]),
            Route("/api/labels", self.labels, methods=["POST"]),
            Route("/api/words", self.words, methods=["POST"]),
            Route("/api/recipe", self.recipe, methods=["POST"]),
            Route("/api/examples", self.examples),
            Route("/api/jobs", self.add_job, methods=["POST"]),
            Route("/api/jobs/{job}", self.stop_job, methods=["DELETE"]),
            Route("/api/jobs/{job}/events", self.events),
            Route("/api/jobs/{job}/{name}", self.job_file),
            Route("/api/run", self.choose_run, methods=["POST"]),
            Route("/api/gallery", self.runs),
            Route("/api/gallery/{run}", self.run),
            Route("/api/gallery/{run}/{name:path}", self.run_picture),
        ]

    async def page(self, request: Request, name: str = "") -> Response:
        """Send a file of the page; `name` is looked up among those listed at the start."""
        path = self.files.get(name or request.path_params.get("name", ""))
        if path is None:
            raise HTTPException(404, "there is no such file")
        content = await run_in_threadpool(path.read_bytes)
        kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if "gzip" in request.headers.get("accept-encoding", ""):
            packed = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
            return Response(gzip.compress(content, mtime=0), media_type=kind, headers=packed)
        return Response(content, media_type=kind)

    async def about(self, request: Request) -> Response:
        """Describe the state of the server, and the run once it is loaded."""
        content, studio = self.worker.about(), self.worker.current
        return JSONResponse(content | ({} if studio is None else studio.about()))

    async def regions(self, request: Request) -> Response:
        """Find the regions of a drawing."""
        method, body = request.query_params.get("extract", ""), await request.body()
        return await self._answer(lambda studio: studio.find_regions(body, method))

    async def edit(self, request: Request) -> Response:
        """Edit regions by hand."""
        body = await request.body()
        return await self._answer(lambda studio: studio.edit_regions(read_object(body)))

    async def labels(self, request: Request) -> Response:
        """Read a label map."""
        body = await request.body()
        return await self._answer(lambda studio: studio.read_label_map(body))

    async def words(self, request: Request) -> Response:
        """Look up unknown words."""
        body = await request.body()
        return await self._answer(lambda studio: studio.look_up(read_object(body)))

    async def recipe(self, request: Request) -> Response:
        """Read a recipe."""
        body = await request.body()
        return await self._answer(lambda studio: studio.read_recipe(body))

    async def examples(self, request: Request) -> Response:
        """List the examples."""
        return await self._answer(lambda studio: studio.results.described())

    async def add_job(self, request: Request) -> Response:
        """Queue a job."""
        self._studio()
        client, body = _client(request), await request.body()
        job = await run_in_threadpool(_job, client, body)
        try:
            ahead = self.jobs.add(job)
        except Busy as error:
            raise HTTPException(429, str(error)) from error
        return JSONResponse({"job": job.id, "ahead": ahead}, 202)

    async def stop_job(self, request: Request) -> Response:
        """Stop a job."""
        return JSONResponse({"stopped": self.jobs.stop(self._job(request))})

    async def events(self, request: Request) -> Response:
        """Stream a job's events."""
        return stream(request, self._job(request))

    async def job_file(self, request: Request) -> Response:
        """Send a file of a job's result."""
        job, name = self._job(request), request.path_params["name"]
        if name not in job.files:
            raise HTTPException(404, "there is no such file")
        content = await run_in_threadpool(job.files[name])
        return _download(content, name)

    async def choose_run(self, request: Request) -> Response:
        """Load another run of the gallery, or again the one of the command line."""
        self._studio()
        identity = read_object(await request.body()).get("run")
        if identity is not None and not isinstance(identity, str):
            raise UserError('the request must be {"run": "..."}, or null for the run that the studio was started with')
        path = None if identity is None else _there(await run_in_threadpool(self._gallery().trained, identity))
        self.worker.choose(path)
        return JSONResponse({"loading": True}, 202)

    async def runs(self, request: Request) -> Response:
        """List the runs of the gallery."""
        return JSONResponse(await run_in_threadpool(self._gallery().listed))

    async def run(self, request: Request) -> Response:
        """Describe a run of the gallery."""
        content = await run_in_threadpool(self._gallery().run, request.path_params["run"])
        return JSONResponse(_there(content))

    async def run_picture(self, request: Request) -> Response:
        """Send a picture of a run of the gallery."""
        run, name = request.path_params["run"], request.path_params["name"]
        content = await run_in_threadpool(self._gallery().picture, run, name)
        return _download(_there(content), name)

    async def _answer(self, call: Callable[[Any], dict[str, Any]]) -> Response:
        """Call a method of the loaded run in a thread."""
        return JSONResponse(await run_in_threadpool(call, self._studio()))

    def _studio(self) -> Any:
        if (studio := self.worker.current) is None:
            raise self._not_yet()
        return studio

    def _not_yet(self) -> HTTPException:
        return HTTPException(503, f"{self.worker.message}: not ready yet; try again in a second", {"Retry-After": "1"})

    def _job(self, request: Request) -> Job:
        return _there(self.jobs.get(request.path_params["job"], _client(request)))

    def _gallery(self) -> Any:
        if self.worker.runs is None:
            raise HTTPException(404, "there is no gallery; start the studio with runs=runs")
        if self.worker.gallery is None:
            raise self._not_yet()
        return self.worker.gallery


def _job(client: str, body: bytes) -> Job:
    """Parse a request for a job."""
    content = read_object(body)
    recipe, details = content.get("recipe"), content.get("details", True)
    if not isinstance(recipe, dict) or type(details) is not bool or content.keys() - {"recipe", "details"}:
        raise UserError('the request must be {"recipe": {...}, "details": true}')
    return Job(client, parse_recipe(recipe), details)


def _client(request: Request) -> str:
    client = request.headers.get(CLIENT_HEADER, "")
    if not CLIENT.fullmatch(client):
        raise HTTPException(400, f"the header {CLIENT_HEADER} must be 8 to 64 letters, digits, _ or -")
    return client


def _there(content: Any) -> Any:
    if content is None:
        raise HTTPException(404, "there is no such thing, or no longer")
    return content


def _download(content: bytes, name: str) -> Response:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    kind = TYPES.get(Path(name).suffix, kind)
    safe = re.sub(r"[^\w.-]", "_", name)
    return Response(content, media_type=kind, headers={"Content-Disposition": f'inline; filename="{safe}"'})


async def _bad_request(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": printable(error)}, 400)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    return JSONResponse({"error": printable(error.detail)}, error.status_code, error.headers)


async def _internal_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "an internal error; see the terminal"}, 500)
