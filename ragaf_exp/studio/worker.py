"""The thread that loads the run, warms it up, and then works on one job after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragaf_exp import __version__
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.printable import printable
from ragaf_exp.studio.jobs import Job, Jobs

log = logging.getLogger(__name__)
IDLE_S = 0.5  # between two looks for jobs
SCHEMA = 1


class Worker:
    """Loads a run in the background and works on its jobs.

    Args:
        path: The run folder.
        jobs: The jobs.
        out: A folder that every result is written to as well; None: none.
        runs: A folder of runs that are shown as a gallery; None: none.
    """

    def __init__(self, path: Path, jobs: Jobs, out: Path | None = None, runs: Path | None = None):
        self.path, self.jobs, self.out, self.runs = path, jobs, out, runs
        self.gallery: Any = None  # studio.gallery.Gallery, once its modules are imported
        self.studio: Any = None  # studio.engine.Studio, once it is loaded; its modules take seconds to import
        self.error: BaseException | None = None  # that ended the loading
        self.progress, self.message, self.ready = 0.0, "Starting", False
        self.first, self.notice = path, ""  # the run of the command line; why another one could not be loaded
        self._next: Path | None = None  # the run to load after the jobs that were added before
        self.failed: Callable[[], object] = lambda: None  # called once where loading fails
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="studio-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """Stop after the current step.

        Returns:
            Whether the thread ended within `timeout` seconds.
        """
        self._closing.set()
        self.jobs.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def about(self) -> dict[str, Any]:
        """Describe the state of loading."""
        state = "failed" if self.error is not None else "ready" if self.ready and self._next is None else "loading"
        error = None if self.error is None else printable(str(self.error) or type(self.error).__name__)
        return {"schema": SCHEMA, "version": __version__, "state": state, "progress": self.progress,
                "message": self.message, "error": error, "queue": self.jobs.capacity, "notice": self.notice,
                "first": self.path == self.first, "run": None, "gallery": self.runs is not None}  # fmt: skip

    @property
    def current(self) -> Any:
        """The loaded run; None while the first one, or another, is being loaded."""
        return None if self._next is not None else self.studio

    def choose(self, path: Path | None = None) -> None:
        """Load another run after the jobs that wait; None: the run of the command line. Pages poll `about` meanwhile."""
        self._next, self.ready, self.notice = path or self.first, False, ""
        self.show(0.4, "Loading the weights")

    def show(self, progress: float, message: str) -> None:
        """Set the progress of loading, in [0,1]."""
        self.progress, self.message = progress, message

    def _run(self) -> None:
        try:
            self._load()
        except BaseException as error:  # reported by the command line
            self.error = error
            self.failed()
            return
        while not self._closing.is_set():
            if (job := self.jobs.take(IDLE_S)) is not None:
                self.work(job)
            elif self._next is not None:
                self._change(self._next)
            else:
                self._idle()

    def _idle(self) -> None:
        try:
            self.studio.idle(self._interrupted)
        except Exception:
            log.exception("an example failed")

    def _load(self) -> None:
        began = time.monotonic()
        self.show(0.05, "Importing PyTorch")
        with stub_optional_imports():
            from ragaf_exp.studio.engine import Studio
            if self.runs is not None:
                from ragaf_exp.studio.gallery import Gallery

                self.gallery = Gallery(self.runs)
        self.show(0.4, "Loading the weights")
        studio = Studio.load(self.path, self.out)
        self.show(0.6, "Compiling the region extractor")
        studio.drawings_ready()
        self.studio = studio
        self._warm_up(studio)
        log.info("ready after %.1f s", time.monotonic() - began)

    def _change(self, path: Path) -> None:
        """Load another run; if that fails, the one before stays and the page shows why."""
        try:
            studio = type(self.studio).load(path, self.out)
            studio.drawings_ready()
            self._warm_up(studio)
            self.studio, self.path = studio, path
        except UserError as error:
            self.notice = printable(error)
        except Exception:
            log.exception("%s could not be loaded", path)
            self.notice = f"{path.name}: could not be loaded; see the terminal"
        self._next, self.ready = None, True

    def _warm_up(self, studio: Any) -> None:
        self.show(0.8, "Sampling the first example")
        studio.warm_up(self._closing.is_set)
        self.show(1.0, "Ready")
        self.ready = True

    def _interrupted(self) -> bool:
        """Whether something else is waiting, so that work in idle time should stop."""
        return self._closing.is_set() or self.jobs.waiting() or self._next is not None

    def work(self, job: Job) -> None:
        """Work on a job to its end; whatever goes wrong becomes its last event, and the next job follows."""
        try:
            self.studio.attempt(job)
        except Exception:
            log.exception("a job failed")
        finally:
            job.report("error", error="the job ended unexpectedly; see the terminal")  # ignored after another last event
            self.jobs.finish(job)
