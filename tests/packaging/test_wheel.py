"""The wheel: built, installed into an empty folder, and used from another, without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from skimage.io import imsave

from ragaf_exp.core.resources import PACKAGE

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """call(module, *arguments) -> a finished process that imports the installed wheel, started in an empty folder."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = folder / "source"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(PACKAGE.parent), str(source)], check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(source)], check=True, timeout=240)
    (wheel,) = folder.glob("*.whl")
    site, work = folder / "site", folder / "work"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, timeout=240)
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def call(module: str, *arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, *module.split(), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=work, env=environment, timeout=280)

    call.site, call.work = site, work
    return call


def test_it_imports_itself(installed):
    done = installed("-c", "import ragaf_exp, eval; print(ragaf_exp.__file__, eval.__file__)")
    assert done.returncode == 0 and all(Path(path).is_relative_to(installed.site) for path in done.stdout.split())


def test_help_run_sample_and_evaluate(installed, tiny):
    assert "python -m ragaf_exp.run" in installed("-m ragaf_exp.run", "--help").stdout
    done = installed("-m ragaf_exp.run", *tiny)
    assert done.returncode == 0, done.stderr
    (run,) = (installed.work / "runs" / "tiny").iterdir()
    assert (run / "report.html").is_file() and (run / "metrics.json").is_file()
    import numpy as np

    sketch = np.full((32, 32), 255, np.uint8)
    sketch[8:24, 8] = sketch[8:24, 23] = sketch[8, 8:24] = sketch[23, 8:24] = 0
    imsave(installed.work / "sketch.png", sketch, check_contrast=False)
    done = installed("-m ragaf_exp.sample", f"run={run}", "sketch=sketch.png", "prompt=a red square", "out=images")
    assert done.returncode == 0 and list((installed.work / "images").rglob("*.png")), done.stderr
    done = installed("-m eval", f"run={run}", "items=2")
    assert done.returncode == 0, done.stderr


def test_sweeps_ship_with_it(installed):
    done = installed("-m ragaf_exp.run", "+sweep=nowhere")
    assert done.returncode == 2 and "fusion" in done.stderr, done.stderr
