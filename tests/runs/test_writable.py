"""A folder that can't be written is reported before the work; out= takes the figures of a read-only run."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import eval.__main__ as scoring
from eval import damage
from eval.features import train_embedded
from ragaf_exp import bench, sample
from ragaf_exp.commands import extractor_sheet, region_survey
from ragaf_exp.core import files, writable
from ragaf_exp.core.errors import UserError
from ragaf_exp.evaluation.controls import __main__
from ragaf_exp.report import __main__ as reporting


@pytest.fixture
def read_only(monkeypatch) -> Callable[[Path], None]:
    """read_only(folder): nothing can be made in it or below it, even by root."""

    def call(folder: Path) -> None:
        make, write = tempfile.TemporaryFile, files.write_atomic

        def refuse(place: object) -> None:
            if Path(place).is_relative_to(folder):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(place))

        monkeypatch.setattr(writable.tempfile, "TemporaryFile", lambda dir: refuse(dir) or make(dir=dir))
        monkeypatch.setattr(files, "write_atomic", lambda path, content: refuse(path) or write(path, content))

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("main", [scoring.main, reporting.main, __main__.main])
def test_a_read_only_run_is_refused_at_once(main, run_copy, read_only, refused, monkeypatch):
    monkeypatch.setattr("ragaf_exp.inference.load.load_run", lambda *args: pytest.fail("it began"))
    read_only(run_copy)
    refused(main, f"run={run_copy}", says=(f"run={run_copy}", "can't be written to", "give out="))


def test_one_folder_of_a_run_that_is_read_only(run_copy, read_only, refused):
    read_only(run_copy / "samples" / "test")
    refused(scoring.main, f"run={run_copy}", says=("samples/test", "give out=FOLDER"))


@pytest.mark.long
def test_figures_of_a_read_only_run_elsewhere(run_copy, read_only, cli, refused, figures, tmp_path):
    before, out = contents(run_copy), tmp_path / "deep" / "figures"
    read_only(run_copy)
    for _ in range(2):  # the same folder may be used again
        status, output, err = cli(scoring.main, f"run={run_copy}", f"out={out}")
        assert status == 0 and str(out / "report.html") in output, err
    assert contents(run_copy) == before
    assert figures(out) == pytest.approx(figures(run_copy), rel=1e-4, abs=1e-4)
    content = json.loads((out / "metrics.json").read_text())
    assert content["config_hash"] == run_copy.name and not (out / "checkpoints").exists()
    assert (out / "items.jsonl").exists() and (out / "samples" / "test" / "index.json").exists()
    page = tmp_path / "new" / "page.html"
    assert cli(reporting.main, f"run={run_copy}", f"out={page}")[0] == 0 and page.exists()
    assert cli(reporting.main, f"runs=[{run_copy},{out}]", f"out={tmp_path / 'both.html'}")[0] == 0
    other = shutil.copytree(run_copy, tmp_path / "other")
    refused(scoring.main, f"run={run_copy}", f"out={other}", says=("is a run folder",))


@pytest.mark.parametrize("place", ["{}/folder", "{}/file/deeper.x", "/dev/full", "/proc/none/x"])
@pytest.mark.parametrize(
    ("main", "words"),
    [
        (scoring.main, ["images={}", "reference={}"]), (extractor_sheet.main, []), (region_survey.main, ["drawings=[{}]"]),
        (damage.main, ["images={}"]), (bench.main, []), (train_embedded.main, []), (reporting.main, ["run={}"]),
        (__main__.main, ["run={}"]),
    ],
)  # fmt: skip
def test_out_is_tried_before_the_work(main, words, place, refused, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(bench, "BENCHES", {})
    out = place.format(tmp_path)
    line = refused(main, *(word.format(tmp_path / "none") for word in words), f"out={out}", says=(f"out={out}",))
    assert "choose another" in line and (tmp_path / "file").read_text() == "mine"


def test_nothing_is_left_of_the_attempt(tmp_path):
    writable.check_folder(tmp_path / "a" / "b", "out")
    writable.check_file(tmp_path / "a" / "b.json", "out")
    assert not list(tmp_path.iterdir())
    for call, path in ((writable.check_file, "/dev/null"), (writable.check_folder, "/dev/full")):
        with pytest.raises(UserError, match="out=/dev/"):
            call(Path(path), "out")


def test_sampling_finds_out_before_it_reads_the_run(refused, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    refused(sample.main, "run=none", "sketch=none.png", "prompt=x", f"out={tmp_path / 'file'}", says=("a file stands",))
