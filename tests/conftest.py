"""Shared test fixtures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ragaf_exp.core.imports import stub_optional_imports

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors are tiny; child processes inherit this
CACHE = tempfile.TemporaryDirectory(prefix="ragaf_exp-")
os.environ["RAGAF_CACHE"] = CACHE.name  # do not use the user's cache

TINY = """
    name=tiny data.size=32 data.train=64 data.val=8 data.test=8
    backbone.widths=[32,32] backbone.heads=2 text.width=32 text.heads=2 text.layers=1 hint.width=16
    ragaf.width=32 ragaf.heads=2 ragaf.layers=1 sampler.steps=2 memory.device=cpu memory.precision=no logger=none
    stage.batch=4 stage.coarse.steps=8 stage.refine.steps=6 stage.refine.region_steps=3
    stage.refine.region_batch=4 optim.warmup=2
    stage.log_every=2 stage.validate_every=4 stage.checkpoint_every=3
    eval.test_items=4 eval.batch=4 eval.validation_items=4 eval.grid=2 eval.pictures=1 eval.bootstrap=20 eval.metrics=[]
""".split()


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Import test modules with the stubs that command lines use."""
    with stub_optional_imports():
        return (yield)


@pytest.fixture(autouse=True)
def forget_signals():
    """Clear the signal that a test sent to its own process, so that it stops no later test's training."""
    yield
    if (module := sys.modules.get("ragaf_exp.runs.signals")) is not None:
        module.STOP.signal_name, module.STOP.ending, module.STOP.orphaned = None, False, False


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real test data: $RAGAF_TEST_DATA, or ../shared next to the checkout. Skips the test if neither exists."""
    given = os.environ.get("RAGAF_TEST_DATA")
    base = Path(given) if given else Path(__file__).resolve().parents[2] / "shared"
    for folder in (base / "data", base):
        if (folder / "openmoji72").is_dir():
            return folder
    pytest.skip(f"no real test data: {base}/data/openmoji72 is absent; set RAGAF_TEST_DATA")


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Overrides of the smallest run with both stages, validation, checkpoints and a report."""
    return list(TINY)


@pytest.fixture(scope="session")
def finished(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run, read-only; use `run_copy` to change files."""
    from ragaf_exp.config.compose import compose_config
    from ragaf_exp.experiments.experiment import run

    return run(compose_config([*tiny, f"runs={tmp_path_factory.mktemp('finished')}"])).path


@pytest.fixture(scope="session")
def figures() -> Callable:
    """figures(run folder) -> the values in metrics.json by name. OpenCV's distances vary in their last digits."""

    def call(folder: Path) -> dict[str, float]:
        metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
        return {name: entry["value"] for name, entry in metrics.items()}

    return call


@pytest.fixture
def run_copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run in a separate runs folder."""
    return shutil.copytree(finished, tmp_path / "runs" / finished.parent.name / finished.name)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """cli(main, *arguments) -> (exit status, stdout, stderr) of a command line, run in this process."""
    from ragaf_exp.config.command_line import guarded

    def call(main: Callable, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        capsys.readouterr()
        status, interrupt = 0, signal.getsignal(signal.SIGINT)
        try:
            guarded(main)
        except SystemExit as end:
            status = end.code or 0
        finally:
            signal.signal(signal.SIGINT, interrupt)
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def refused(cli: Callable) -> Callable:
    """refused(main, *arguments, says=...) checks that a command line exits with status 2 and one line on stderr."""

    def call(main: Callable, *arguments: object, says: tuple[str, ...] = ()) -> str:
        status, out, err = cli(main, *arguments)
        assert status == 2, (out, err)
        lines = err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), err
        for text in says:
            assert text in lines[0], f"{text!r} is not in {lines[0]!r}"
        return lines[0]

    return call


@pytest.fixture(scope="session")
def process() -> Callable:
    """process(module, *arguments) -> the completed `python -m module arguments` in a new interpreter."""

    def call(module: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=240)

    return call
