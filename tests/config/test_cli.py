"""The command lines that train, score and report: a mistake is one line and status 2; a preset's sweep needs no -m."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from ragaf_exp import report, sample
from ragaf_exp.commands import evaluate as scoring
from ragaf_exp.config import command_line as command_lines
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum
from ragaf_exp.experiments.experiment import run
from ragaf_exp.report import __main__ as reporting
from ragaf_exp.run import command_line
from ragaf_exp.runs import checkpoints
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.process


def one_line_errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


# --- real processes, for what only they show: nothing on stderr but the line, and the status


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        ("ragaf_exp.run", ["data.sise=32"], ["data.sise", "known are", "size"]),
        ("ragaf_exp.sample", ["run=nowhere", "sketch=a.png", "prompt=x", "out=o", "steps=0"], ["steps=0", "between"]),
        ("eval", ["run=nowhere"], ["nowhere", "no such run folder"]),
        ("ragaf_exp.report", ["run=nowhere"], ["nowhere", "no such run folder"]),
    ],
)
def test_a_mistake_is_one_line_and_status_2(module, arguments, says, process, tmp_path):
    ended = process(module, *arguments, cwd=tmp_path)
    assert ended.returncode == 2 and ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ") and all(text in line for text in says), line
    assert list(tmp_path.iterdir()) == [], "nothing is written before the config is known to be good"


# --- the same in this process


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["+typo=3"], ("typo", "unknown key", "sampler")),
        (["typo=3"], ("typo",)),
        (["++typo.deep=3"], ("typo", "unknown key")),
        (["stage.coarse.stesp=3"], ("stage.coarse.stesp", "steps", "lr")),
        (["data.size=big"], ("data.size", "big")),
        (["stage.coarse.steps=1.5"], ("stage.coarse.steps", "1.5")),
        (["seed=one"], ("seed", "int")),
        (["data.size=62"], ("data.size=62", "multiple of")),
        (["data.size=60", "codec.patch=8"], ("data.size=60", "must be a multiple of 8")),
        (["stage=all"], ("stage", "all", "both", "coarse", "refine")),
        (["graph=star"], ("graph", "star", "knn", "complete")),
        (["stage=7"], ("stage=7", "both")),
        (["+experiment=nothing"], ("experiment", "nothing", "smoke")),
        (["nonsense"], ("nonsense",)),
        (["data.size="], ("data.size",)),
        (["a=b=c=[d"], ("a",)),
        (["name=../escape"], ("name=../escape",)),
        (["stage=refine"], ("stage.run=[refine]", "init=", "stage=both")),
        (["stage=refine", "init=nowhere"], ("nowhere", "no such run folder")),
        (["data=folder"], ("data.root",)),
        (["data=openmoji"], ("data.root",)),
        (["data=openmoji", "data.root=nowhere"], ("nowhere",)),
        (["sampler.steps=0"], ("sampler.steps=0",)),
        (["stage.refine.strength=1.2"], ("stage.refine.strength=1.2", "must be from 0.001 to 1")),
        (["sampler.guidance=-1"], ("sampler.guidance=-1",)),
        (["text.width=30", "text.heads=4"], ("text.width=30", "text.heads=4")),
        (["backbone.widths=[48,64]"], ("backbone.widths=[48, 64]", "32")),
        (["memory.precision=int8"], ("memory.precision=int8", "bf16")),
        (["data._target_=os.system"], ("data._target_=os.system",)),
        (["+data.x._target_=os.system"], ("data.x",)),
    ],
)
def test_mistakes_of_run(arguments, says, refused, tiny, tmp_path):
    set_here = {a.partition("=")[0] for a in arguments}
    counts = ("data.train", "data.val", "data.test") if {"data=folder", "data=openmoji"} & set(arguments) else ()
    words = [w for w in tiny if w.partition("=")[0] not in set_here and not w.startswith(counts)]
    refused(command_line, *words, f"runs={tmp_path / 'runs'}", *arguments, says=says)
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("metrics.json*"))


def test_an_unwritable_runs_folder(refused, tiny, tmp_path):
    (tmp_path / "file").write_text("")
    refused(command_line, *tiny, f"runs={tmp_path / 'file'}", says=(str(tmp_path / "file"), "a file stands"))
    refused(command_line, *tiny, f"runs={tmp_path / 'file' / 'deeper'}", says=("a file stands",))
    refused(command_line, *tiny, "runs=/proc/nowhere", says=("/proc/nowhere",))
    words = [w for w in tiny if not w.startswith("name=")]
    refused(command_line, *words, "name=" + "x" * 300, f"runs={tmp_path}", says=("too long",))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(refused, tiny, tmp_path):
    (tmp_path / "mine").mkdir(mode=0o500)
    refused(command_line, *tiny, f"runs={tmp_path / 'mine'}", says=("permission denied",))


@pytest.mark.parametrize("code", command_lines.ERRNO_HINTS)
def test_what_the_system_refuses_is_one_line(code, refused, tiny, tmp_path, monkeypatch):
    made = Path.mkdir

    def mkdir(self, *args, **kwargs):
        if self.is_relative_to(tmp_path):
            raise OSError(code, os.strerror(code), str(self))
        made(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    refused(command_line, *tiny, f"runs={tmp_path}", says=(str(tmp_path), command_lines.ERRNO_HINTS[code].split(";")[0]))


@pytest.mark.parametrize("at", [1, 9])
def test_a_full_disk_is_one_line_and_costs_no_checkpoint(at, cli, tiny, finished, tmp_path, monkeypatch):
    """The disk is full from the at-th checkpoint file on, and so for the status file after it."""
    count, fsync, save_file = [], os.fsync, checkpoints.save_file

    def full(handle):
        if len(count) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    def counted(tensors, path):
        count.append(path)
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr(checkpoints, "save_file", counted)
        status, _, err = cli(command_line, *tiny, f"runs={tmp_path}")
    (line,) = one_line_errors(err)
    assert status == 2 and "no space left" in line and "Traceback" not in err
    folder = RunFolder(tmp_path / "tiny" / finished.name)
    result = checkpoints.load_newest(folder.checkpoints, "coarse")
    assert (result.step if result else None) == (None if at == 1 else 6)
    if at > 1:
        run(compose_config([*tiny, f"runs={tmp_path}"]))
        same = "checkpoints/refine/00000009/model.safetensors"
        assert (folder.path / same).read_bytes() == (finished / same).read_bytes()


def test_another_fault_keeps_its_traceback(cli):
    def broken():
        raise OSError(errno.EPROTO, "not a user's mistake")

    with pytest.raises(OSError, match="not a user's mistake"):
        cli(broken)
    with pytest.raises(ZeroDivisionError):
        cli(lambda: 1 / 0)


def test_ctrl_c_shows_how_to_continue(cli):
    def interrupted():
        raise KeyboardInterrupt

    status, _, err = cli(interrupted)
    assert status == 130 and "continues" in err


# --- run folders that are not what they should be


def _schema(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))


FOLDERS = {
    "no config": (lambda run: (run / "config.yaml").unlink(), ("config.yaml", "missing")),
    "empty config": (lambda run: (run / "config.yaml").write_text(""), ("config.yaml", "empty")),
    "damaged config": (lambda run: (run / "config.yaml").write_text("a: [b"), ("config.yaml", "damaged")),
    "binary config": (lambda run: (run / "config.yaml").write_bytes(os.urandom(64) + b"\xff"), ("config.yaml",)),
    "config of a list": (lambda run: (run / "config.yaml").write_text("[1, 2]"), ("config.yaml",)),
    "no status": (lambda run: (run / "status.json").unlink(), ("status.json", "missing")),
    "status of a list": (lambda run: (run / "status.json").write_text("[1]"), ("status.json", "damaged")),
    "damaged status": (lambda run: (run / "status.json").write_text('{"sch'), ("status.json", "damaged")),
    "newer schema": (lambda run: _schema(run / "status.json"), ("schema 2", "newer")),
}
UNUSABLE = {
    "unfinished": (lambda run: (run / "status.json").write_text('{"schema": 1, "state": "running"}'), ("unfinished",)),
    "no checkpoint": (lambda run: [p.unlink() for p in run.rglob("ema.safetensors")], ("checkpoints", "train")),
    "no tokenizer": (lambda run: (run / "tokenizer.json").unlink(), ("tokenizer.json",)),
    "damaged tokenizer": (lambda run: (run / "tokenizer.json").write_text("{}"), ("tokenizer.json", "damaged")),
    "another model": (lambda run: _reconfigure(run, "ragaf", "width", 64), ("does not fit", "config.yaml")),
    "newer checkpoint": (lambda run: [_schema(p) for p in run.rglob("state.json")], ("schema 2", "newer")),
}


def _reconfigure(run: Path, group: str, key: str, value: object) -> None:
    content = yaml.safe_load((run / "config.yaml").read_text())
    content[group][key] = value
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    status = json.loads((run / "status.json").read_text())
    status["config"] = checksum(run / "config.yaml")  # as a run of that config has it
    (run / "status.json").write_text(json.dumps(status))


@pytest.fixture
def drawing(finished) -> Path:
    """A line drawing: one that evaluation left."""
    return finished / "samples" / "test" / "0000" / "sketch.png"


@pytest.mark.parametrize("damage", [*FOLDERS, *UNUSABLE])
def test_damaged_run_folders(damage, refused, run_copy, drawing, tmp_path):
    change, says = (FOLDERS | UNUSABLE)[damage]
    change(run_copy)
    out = tmp_path / "out"
    refused(sample.main, f"run={run_copy}", f"sketch={drawing}", "prompt=x", f"out={out}", says=says)
    assert not out.exists()
    before = (run_copy / "metrics.json").read_bytes()
    refused(scoring.main, f"run={run_copy}", says=says)
    assert (run_copy / "metrics.json").read_bytes() == before
    if damage in FOLDERS:
        refused(reporting.main, f"run={run_copy}", says=says)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(cli, run_copy, drawing, tmp_path, caplog):
    newest = run_copy / "checkpoints" / "refine" / "00000009" / "ema.safetensors"
    newest.write_bytes(newest.read_bytes()[:50])
    status, _, err = cli(sample.main, f"run={run_copy}", f"sketch={drawing}", "prompt=x", f"out={tmp_path / 'out'}")
    assert status == 0, err
    assert str(newest.parent) in caplog.text and "falling back" in caplog.text


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "ragaf_exp.core.files.os.mkdir",
        "ragaf_exp.run.hydra.utils.instantiate",
        "ragaf_exp.config.command_line.os.system",
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_strangers_run_folder_runs_no_code(target, nested, refused, run_copy, drawing, tmp_path):
    made = tmp_path / "made"
    content = yaml.safe_load((run_copy / "config.yaml").read_text())
    call = {"_target_": target, "path": str(made), "_args_": [str(made)]}
    if nested:
        content["sketch"]["inner"] = call
    else:
        content["sketch"] = call
    (run_copy / "config.yaml").write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    says = ("config.yaml", "sketch")
    refused(sample.main, f"run={run_copy}", f"sketch={drawing}", "prompt=x", f"out={out}", says=says)
    refused(scoring.main, f"run={run_copy}", says=says)
    refused(reporting.main, f"run={run_copy}", says=says)
    assert not made.exists() and not out.exists()


def test_damaged_figures(cli, refused, run_copy, tiny):
    """A report names them; eval writes them again, and so does the run's own command where nothing can be read."""
    command = [*tiny, f"runs={run_copy.parents[1]}"]
    for content in ("", "[]", '{"schema": 1, "metrics": {"mse": 3}}'):
        (run_copy / "metrics.json").write_text(content)
        refused(reporting.main, f"run={run_copy}", says=("metrics.json",))
    refused(command_line, *command, says=("metrics.json", "damaged"))
    status, out, _ = cli(scoring.main, f"run={run_copy}")
    assert status == 0 and "sketch_f1" in out
    (run_copy / "metrics.json").write_text("[]")
    assert cli(command_line, *command)[0] == 0
    assert "sketch_f1" in json.loads((run_copy / "metrics.json").read_text())["metrics"]


@pytest.mark.parametrize(
    ("main", "arguments", "says"),
    [
        (scoring.main, [], ("run=",)),
        (scoring.main, ["run=x", "itmes=3"], ("itmes=3", "items=")),
        (scoring.main, ["run=x", "items=many"], ("items=many", "int")),
        (scoring.main, ["run=x", "items=-1"], ("items=-1",)),
        (reporting.main, [], ("run=",)),
        (reporting.main, ["runs=[a,b]"], ("a,b",)),
    ],
)
def test_mistakes_of_eval_and_report(main, arguments, says, refused):
    refused(main, *arguments, says=says)


def test_a_report_that_cannot_be_written(refused, finished, tmp_path):
    refused(reporting.main, f"run={finished}", f"out={tmp_path}", says=(str(tmp_path), "a folder stands"))
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "r.html"
    refused(reporting.main, f"run={finished}", f"out={out}", says=("r.html", "a file stands where a folder is needed"))


def test_eval_and_report_of_a_run(cli, run_copy, finished, tmp_path):
    status, out, _ = cli(scoring.main, f"run={run_copy}", "items=3")
    assert status == 0 and str(run_copy) in out
    metrics = json.loads((run_copy / "metrics.json").read_text())["metrics"]
    assert {entry["n"] for name, entry in metrics.items() if name in ("mse", "stage1/mse", "sketch_f1")} == {3}
    status, out, _ = cli(reporting.main, f"run={run_copy}", f"out={tmp_path / 'r.html'}")
    assert status == 0 and out.strip() == str(tmp_path / "r.html") and (tmp_path / "r.html").stat().st_size > 20_000


# --- stages apart, and sweeps


def test_stages_one_after_the_other_are_both_at_once(tiny, finished, run_copy, cli, tmp_path, figures):
    """stage=refine from another run's stage 1 ends as stage=both does; the new run stands on its own."""
    words = [*tiny, f"runs={tmp_path / 'new'}", "stage=refine", f"init={run_copy}"]
    refine = run(compose_config(words)).path
    for stage, step in (("coarse", 8), ("refine", 9)):
        for part in ("model", "ema"):
            place = f"checkpoints/{stage}/{step:08d}/{part}.safetensors"
            assert (refine / place).read_bytes() == (finished / place).read_bytes()
    assert figures(refine) == pytest.approx(figures(finished), rel=1e-6)
    shutil.rmtree(run_copy)
    assert run(compose_config(words)).state["state"] == "done"
    status, _, err = cli(scoring.main, f"run={refine}", "items=2")
    assert status == 0, err


def test_a_run_of_stage_1_alone_is_scored_and_sampled(cli, run_copy, drawing, tmp_path):
    _reconfigure(run_copy, "stage", "run", ["coarse"])
    shutil.rmtree(run_copy / "checkpoints" / "refine")
    status, out, err = cli(scoring.main, f"run={run_copy}")
    assert status == 0, err
    metrics = json.loads((run_copy / "metrics.json").read_text())["metrics"]
    assert "mse" in metrics and not any(name.startswith("stage1/") for name in metrics)
    out = tmp_path / "out"
    status, _, err = cli(sample.main, f"run={run_copy}", f"sketch={drawing}", "prompt=x", f"out={out}")
    assert status == 0 and (out / "stage1.png").exists() and not (out / "stage2.png").exists(), err


def test_an_init_that_cannot_be_started_from_is_refused(refused, tiny, run_copy, tmp_path):
    words = [*tiny, "stage=refine", f"runs={tmp_path / 'new'}", f"init={run_copy}"]
    refused(command_line, *words, "hint.width=24", says=("does not fit",))
    shutil.rmtree(run_copy / "checkpoints" / "coarse")
    refused(command_line, *words, says=(str(run_copy), "stage coarse", "stage.run=[coarse]"))


def test_a_kill_while_stage_1_is_copied_can_be_continued(tiny, finished, tmp_path, monkeypatch):
    cfg = compose_config([*tiny, "stage=refine", f"runs={tmp_path}", f"init={finished}", "stage.refine.steps=1"])

    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_json", dies)
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    assert run(cfg).state["state"] == "done"


def test_the_ablation_sweeps_without_the_multirun_flag(process, tiny, tmp_path, name="ablation"):
    """Without -m, as its preset says; every member has a run folder, and stage 1 is trained once for both."""
    short = ["stage.coarse.steps=1", "stage.refine.steps=1", "stage.refine.region_steps=1", "eval.test_items=2",
             "eval.pictures=1"]  # fmt: skip
    words = [w for w in tiny if w.partition("=")[0] not in {"name", *(s.partition("=")[0] for s in short)}]
    few = ["member=full,graph_none", "seed=1"]
    ended = process("ragaf_exp.run", f"+experiment={name}", *words, *short, *few, f"runs={tmp_path / 'runs'}", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    folders = [p for p in (tmp_path / "runs" / name).iterdir() if p.is_dir() and p.name != "stage1"]
    assert len(folders) == 2 and ended.stdout.count("report.html") == 2
    assert all(json.loads((p / "status.json").read_text())["state"] == "done" for p in folders)
    (shared,) = (tmp_path / "runs" / name / "stage1").iterdir()
    assert all((p / json.loads((p / "status.json").read_text())["stage1"]).resolve() == shared.resolve() for p in folders)
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def test_a_sweep_over_a_key_that_no_yaml_states(cli, tiny, tmp_path):
    """The refused member is named, and the other runs all the same."""
    status, _, err = cli(command_line, "-m", *tiny, f"runs={tmp_path}", "stage.keep=0,1")
    assert status == 2 and err.startswith("error: stage.keep=0: must be from 1"), err
    (run,) = (path for path in (tmp_path / "tiny").iterdir() if path.is_dir())
    assert json.loads((run / "status.json").read_text())["state"] == "done"


def test_a_report_is_written_for_every_run(finished):
    assert report.write_report(finished, finished / "again.html").read_text() == (finished / "report.html").read_text()
    (finished / "again.html").unlink()


def test_the_environment_names_the_command_as_it_was_typed(monkeypatch, tiny, tmp_path):
    monkeypatch.setattr(sys, "argv", ["run.py", "++data.size=32", "seed=3"])
    folder = RunFolder.create(compose_config([*tiny, f"runs={tmp_path}"]))
    assert json.loads((folder.path / "environment.json").read_text())["command"] == ["run.py", "data.size=32", "seed=3"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["a=1", "c=[x, y]", "b=text = with"], {"a": 1, "b": "text = with", "c": ["x", "y"]}),
        (['b="quoted"', "c=[]"], {"b": "quoted", "c": []}),
        (["b="], {"b": ""}),
    ],
)
def test_arguments(arguments, wanted):
    assert command_lines.parse_args(arguments, {"a": int, "b": str, "c": list}) == wanted


@pytest.mark.parametrize("argument", ["d=1", "a", "a=x", "a=1.5", "=1", ""])
def test_bad_arguments(argument):
    with pytest.raises(UserError):
        command_lines.parse_args([argument], {"a": int, "b": str})
