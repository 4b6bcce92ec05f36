"""The disk cache in training, which it must not change by a bit, and its command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_files import train_all

from ragaf_exp.commands.cache.__main__ import main
from ragaf_exp.commands.cache.inspect import BOUND
from ragaf_exp.config.compose import compose_config
from ragaf_exp.experiments.training import Training
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.process

SHORT = "stage.coarse.steps=4 stage.refine.steps=2 stage.refine.region_steps=2 data.train=16".split()
FEW = "data.size=32 data.train=24 data.val=3 data.test=2".split()


def trained(words: list[str], runs: Path, *more: str) -> tuple[dict[str, bytes], Training]:
    """Bytes of all checkpoints after a short training of both stages."""
    taken = {word.partition("=")[0] for word in [*SHORT, *more]}
    words = [*(w for w in words if w.partition("=")[0] not in taken), *SHORT, *more, f"runs={runs}"]
    cfg = compose_config(words)
    experiment = Training(cfg, RunFolder.create(cfg))
    train_all(experiment)
    folder = experiment.folder.path
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}, experiment


def test_training_is_the_same_to_the_bit_with_the_cache_cold_warm_and_disabled(tiny, tmp_path):
    place = f"cache.folder={tmp_path / 'cache'}"
    disabled, _ = trained(tiny, tmp_path / "disabled", "cache=none")
    cold, experiment = trained(tiny, tmp_path / "cold", place)
    assert experiment.parts.prepare.computed == len(list(tmp_path.glob("cache/*/*.graph"))) > 16
    warm, experiment = trained(tiny, tmp_path / "warm", place)
    assert experiment.parts.prepare.computed == 0
    assert len(disabled) >= 6 and disabled == cold == warm


def test_loader_workers_fill_it_and_read_it(tiny, tmp_path):
    place = f"cache.folder={tmp_path / 'cache'}"
    runs = [trained(tiny, tmp_path / name, place, "stage.workers=2")[0] for name in ("cold", "warm")]
    alone, experiment = trained(tiny, tmp_path / "alone", place, "stage.workers=0")
    assert experiment.parts.prepare.computed == 0 and not list(tmp_path.rglob("*.tmp"))
    assert runs[0] == runs[1] == alone


# the command line


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def test_warm_then_show_then_prune(cli, cache):
    words = ["warm", f"cache.folder={cache}", *FEW]
    assert "29 items, 29 of them computed now, 0 cached before" in cli(main, *words)[1]
    assert "29 items, 0 of them computed now, 29 cached before" in cli(main, *words)[1]
    assert "29 items, 29 of them" in cli(main, *words, "sketch=canny", "graph=knn")[1]
    status, out, _ = cli(main, "show", f"folder={cache}")
    size = f"{4096 * sum(-(-path.stat().st_size // 4096) for path in cache.glob('*/*.graph')) / 1e6:.2f} MB"
    assert status == 0 and f"{cache}: 58 entries, {size}; the limit is cache.gigabytes, {BOUND:g} by default" in out
    assert "29 entries" in out and "Drawn, Enclosed, Complete" in out and "Canny, Enclosed, Knn" in out
    assert re.search(r"oldest 20\d\d-.*newest 20\d\d-", out)
    entries = sorted(cache.glob("*/*.graph"))
    assert f"0 entries of 0.00 MB removed, {size} left" in cli(main, "prune", f"folder={cache}")[1]
    assert sorted(cache.glob("*/*.graph")) == entries
    out = cli(main, "prune", f"folder={cache}", "gigabytes=0.0011")[1]  # a block in each shard
    left = list(cache.glob("*/*.graph"))
    assert 0 < len(left) < 58 and f"{58 - len(left)} entries" in out
    assert max(len(list(shard.iterdir())) for shard in cache.iterdir() if shard.is_dir()) == 1
    assert f"{len(left)} entries" in cli(main, "prune", f"folder={cache}", "gigabytes=all")[1]
    assert not [p for p in cache.rglob("*") if p.is_file()]
    assert "0 entries, 0.00 MB" in cli(main, "show", f"folder={cache}")[1]


def test_show_without_a_cache_and_with_a_damaged_description(cli, cache, monkeypatch):
    monkeypatch.setenv("RAGAF_CACHE", str(cache))
    assert f"{cache}: 0 entries" in cli(main, "show")[1] and "0 entries" in cli(main, "prune")[1]
    cli(main, "warm", *FEW)
    (description,) = cache.glob("*.json")
    for content in (b"", b"[1]", b"{}", b"\xff", b'{"sketch": 3}'):
        description.write_bytes(content)
        status, out, _ = cli(main, "show")
        assert status == 0 and f"unknown config ({description.name}" in out


def test_workers_fill_it_together(process, cli, cache):
    """Separate processes fill it, as a user calls the command; this process reads their entries."""
    done = process("ragaf_exp.commands.cache", "warm", f"cache.folder={cache}", *FEW, "workers=2")
    assert done.returncode == 0 and "29 items, 29 of them computed now" in done.stdout, done.stderr
    assert "warming the cache: 100%" in done.stderr and "item/s" in done.stderr
    assert "29 items, 0 of them" in cli(main, "warm", f"cache.folder={cache}", *FEW)[1]


def test_an_interrupt_keeps_the_entries_written_so_far(cache):
    many = [f"cache.folder={cache}", "data.size=32", "data.train=200000", "data.val=1", "data.test=1"]
    command = [sys.executable, "-m", "ragaf_exp.commands.cache", "warm", *many]
    heeds = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731 - jobs in the background don't
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heeds)
    for _ in range(6000):
        if len(list(cache.glob("*/*.graph"))) > 20:
            break
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "computed entries are stored" in err and "Traceback" not in err
    assert not list(cache.rglob("*.tmp")) and not out


def test_bad_data_is_one_line(cli, cache, tmp_path):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for number in range(12):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    rows = "".join(f'{{"file_name": "{number}.png", "text": "x"}}\n' for number in range(12))
    (tmp_path / "photos" / "metadata.jsonl").write_text(rows)
    words = ["warm", f"cache.folder={cache}", "data=folder", f"data.root={tmp_path / 'photos'}", "data.size=32"]
    status, _, err = cli(main, *words, "sketch=drawn")
    assert status == 2 and "no drawings" in err.splitlines()[-1] and "Traceback" not in err
    status, out, _ = cli(main, *words, "sketch=canny")
    assert status == 0 and "12 items, 12 of them" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], ("show, warm, prune",)),
        (["melt"], ("melt", "show, warm, prune")),
        (["show", "all"], ("all", "folder=")),
        (["show", "folder=/no/such/place"], ("folder=/no/such/place",)),
        (["prune", "folder=/no/such/place"], ("folder=/no/such/place",)),
        (["prune", "gigabytes=-1"], ("gigabytes=-1", "all")),
        (["prune", "gigabytes=0"], ("gigabytes=0",)),
        (["prune", "gigabytes=nan"], ("gigabytes=nan",)),
        (["prune", "gigabytes=lots"], ("gigabytes=lots",)),
        (["prune", "size=3"], ("size=3", "gigabytes=")),
        (["warm", "workers=-1"], ("workers=-1",)),
        (["warm", "workers=two"], ("workers=two", "int")),
        (["warm", "cache=none"], ("cache.enabled",)),
        (["warm", "cache.gigabytes=0"], ("cache.gigabytes",)),
        (["warm", "data.sise=3"], ("data.sise", "size")),
        (["warm", "cache.folder=/dev/null"], ("/dev/null",)),
        (["warm", "cache.folder=/dev/null/cache"], ("/dev/null",)),
    ],
)
def test_unknown_and_invalid_arguments_are_refused_in_one_line(words, says, refused):
    refused(main, *words, says=says)


def test_a_folder_that_takes_nothing_stops_warming(cli, cache, monkeypatch):
    def fails(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("ragaf_exp.store.entries.os.replace", fails)
    status, _, err = cli(main, "warm", f"cache.folder={cache}", *FEW)
    assert status == 2 and str(cache) in err.splitlines()[-1] and "Traceback" not in err
