"""The questions in sweeps/, the launchers' presets, and a search for what would be slow with thousands of runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.hydra_versions import VERSION_BASE
from ragaf_exp.config.schema import Cluster
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resources import CONF
from ragaf_exp.run import expanded
from ragaf_exp.sweep.definition import SWEEPS, combinations, read_sweep
from ragaf_exp.sweep.members import compose_members
from ragaf_exp.sweep.snapshot import take

FILES = sorted(SWEEPS.glob("*.yaml"))
MANY = 2000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_sweep(path):
    header = path.read_text().splitlines()
    for word in ("# Hypothesis: ", "# Members: ", "# Command: "):
        assert any(line.startswith(word) for line in header)
    sweep = read_sweep(path.stem)
    members = combinations(sweep.all_overrides)
    if sweep.grid:
        output = next(line for line in header if line.startswith("# Members: "))
        assert f" {len(members)}" in output
        for member in (members[0], members[-1]):
            assert compose_config(list(member.values())).name == path.stem
    else:
        assert sweep.search


@pytest.mark.parametrize(("text", "says"), [
    ("grids: {seed: [0]}", "grids"), ("grid: {seed: 0}", "list of values"), ("- a", "mapping"), ("a: [", "not valid YAML"),
    ("overrides: seed=0", "list of overrides"), ("grid: {seed: []}", "list of values"),
])  # fmt: skip
def test_a_wrong_sweep_is_refused(text, says, tmp_path):
    (path := tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        read_sweep(str(path))


def test_later_overrides_replace_earlier_ones_of_their_key():
    members = combinations(["name=a", "seed=0,1,2", "fusion=none", "seed=7,8", "stage.coarse.steps=5"])
    assert [m["seed"] for m in members] == ["seed=7", "seed=8"]
    assert members[0]["stage.coarse.steps"] == "++stage.coarse.steps=5"


def test_members_are_what_hydra_composes(tmp_path):
    """Values are set after one composition of many members: the same configs, to the hash."""
    words = ["name=x", f"runs={tmp_path}", "fusion=none,fixed", "seed=0,1", "optim.betas=[0.8,0.9],[0.9,0.99]", "init=null"]
    members = compose_members(words)
    assert len({m.hash for m in members}) == 8
    for member, chosen in zip(members, combinations(words), strict=True):
        assert OmegaConf.to_container(member.cfg) == OmegaConf.to_container(compose_config(list(chosen.values())))


@pytest.mark.long
def test_an_experiment_with_a_sweep_has_its_members():
    assert len(compose_members(["name=x", "+experiment=ablation"])) >= 2


def test_a_named_sweep_on_hydras_command_line():
    words = expanded(["+sweep=fusion", "seed=5", "hydra/launcher=joblib"])
    assert words[0] == "-m" and "seed=5" in words and not any(word.startswith("seed=0") for word in words)
    with pytest.raises(UserError, match="no such sweep"):
        expanded(["+sweep=fushion"])


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "submitit_slurm"])
def test_launchers_take_what_the_cluster_group_says(name):
    pytest.importorskip(f"hydra_plugins.hydra_{name.partition('_')[0]}_launcher")
    words = [f"hydra/launcher={name}", "++cluster.partition=gpu", "++cluster.minutes=77"]
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        cfg = compose("config", words, return_hydra_config=True)
    launcher = cfg.hydra.launcher
    if name != "joblib":
        assert launcher.timeout_min == 77
    if name == "submitit_slurm":
        assert launcher.partition == "gpu" and launcher.account is None and launcher.array_parallelism == 256


def test_every_memory_profile_says_what_its_jobs_ask_for():
    """An option of conf/cluster/ by the profile's name; where there is none, the defaults hold."""
    for path in (p for p in (CONF / "memory").glob("*.yaml") if p.stem != "auto"):  # which stands for one of them
        OmegaConf.merge(Cluster, compose_config([f"memory={path.stem}"]).cluster)
    assert compose_config([]).cluster == compose_config(["cluster=cpu"]).cluster


def test_a_snapshot_is_quick_and_small(tmp_path):
    began = time.process_time()
    path = take(tmp_path)
    assert time.process_time() - began < 1
    assert sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) < 5_000_000
    assert (path / "ragaf_exp" / "run.py").is_file() and not (path / "ragaf_exp" / "weights").exists()
    assert take(tmp_path) == path and [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Synthetic run folders, without a record, in the worst order for a reader."""
    home = tmp_path_factory.mktemp("many") / "runs" / "many"
    config = OmegaConf.to_yaml(compose_config(["name=many"]))
    entry = {"value": 0.5, "n": 100, "ci95": [0.4, 0.6], "higher_is_better": True, "weights": "ema", "seed": 0}
    metrics = json.dumps({"schema": 1, "metrics": {f"stage1/{i}": entry for i in range(20)} | {"binding_accuracy": entry}})
    for i in range(MANY):
        run = home / f"{i:012x}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(config.replace("seed: 0", f"seed: {i}"))
        state = ("done", "failed", "running", "preempted")[i % 4]
        (run / "status.json").write_text(json.dumps({"schema": 1, "state": state, "updated": 1, "step": 3, "error": "x"}))
        (run / "metrics.json").write_text(metrics if state == "done" else "{}")
    return home


# the peak of this program alone: getrusage counts the process that started it, before it became this one
MEASURED = """
import re, runpy, sys, time
try:
    runpy.run_module("ragaf_exp.sweep", run_name="__main__", alter_sys=True)
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    print(time.process_time(), peak, file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["status", "report"])
def test_thousands_of_runs(command, many):
    words = ["format=json"] if command == "status" else []
    line = [sys.executable, "-c", MEASURED, command, str(many), *words]
    done = subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode == (1 if command == "status" else 0), done.stderr
    seconds, peak = map(float, done.stderr.split()[-2:])
    assert seconds < 5 and peak < 500_000, (seconds, peak)
