"""`run=demo` names the run that ships with the package; it is read and never written to."""

from __future__ import annotations

import shutil

import pytest

from eval.__main__ import main as evaluate
from ragaf_exp import sample
from ragaf_exp.config import packaged
from ragaf_exp.plan.__main__ import main as plan
from ragaf_exp.report.__main__ import main as report


@pytest.fixture
def demo(finished, tmp_path, monkeypatch):
    """The tiny run in the place of the demo."""
    shutil.copytree(finished, tmp_path / "weights" / "demo")
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def drawing(tmp_path):
    import numpy as np
    from skimage.io import imsave

    sketch = np.full((32, 32), 255, np.uint8)
    sketch[8:24, 8] = sketch[8:24, 23] = sketch[8, 8:24] = sketch[23, 8:24] = 0
    imsave(tmp_path / "drawing.png", sketch, check_contrast=False)
    return "drawing.png"


@pytest.mark.parametrize("run", [(), ("run=demo",)])
def test_sample_takes_it_by_default(demo, drawing, cli, tmp_path, run):
    status, out, err = cli(sample.main, *run, f"sketch={drawing}", "prompt=a red square", "out=images")
    assert status == 0, err
    assert list((tmp_path / "images").rglob("stage2.png"))


def test_report_needs_an_out_for_it(demo, cli, refused, tmp_path):
    refused(report, "run=demo", says=("ships with the package", "give out=FILE.html"))
    refused(evaluate, "run=demo", says=("ships with the package", "give out=FOLDER"))
    status, out, err = cli(report, "run=demo", "out=page.html")
    assert status == 0 and (tmp_path / "page.html").is_file(), err


@pytest.mark.long
def test_plan_reads_its_config(demo, cli, refused):
    status, out, err = cli(plan, "run=demo")
    assert status == 0 and "refine" in out, err
    refused(plan, "run=demo", "stage.batch=4", says=("stage.batch=4", "run="))


def test_an_installation_without_it(refused, drawing, tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "none")
    refused(
        sample.main, f"sketch={tmp_path / drawing}", "prompt=red", f"out={tmp_path / 'out'}", says=("run=demo", "missing")
    )
    assert packaged.run_path("./demo") == "./demo"
