"""The fault matrix on a real SLURM. Runs go side by side in chains, each of faults of one run one after the other; the
tests then say what has to be true of each. After every fault: nothing done is done again beyond one checkpoint
interval, and the last weights are those of the undisturbed run, to the byte.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster import Cluster
from jobs import INTERVAL, PATIENCE, ROOT, STEPS, TINY, Member
from safetensors.torch import load_file

LIMIT = int(os.environ.get("RAGAF_SLURM_LIMIT", 2))  # minutes; more where the machine is busy
NOTICED_S = 60.0  # within which a state must be true
OTHER_ADDRESS = "hosts=$(mktemp) && echo 192.0.2.7 $(hostname) > $hosts && mount --bind $hosts /etc/hosts"


class Chains:
    """Each method is one chain; its run, and what it recorded."""

    def __init__(self, cluster: Cluster, base: Path):
        self.cluster, self.base = cluster, base

    def member(self, name: str) -> Member:
        return Member(self.cluster, self.base, name)

    def undisturbed(self) -> dict:
        m = self.member("undisturbed")
        return {"member": m, "ends": [m.ended(m.submit())]}

    def own_faults(self) -> dict:
        """Faults that a run causes: each job but the last ends by another one."""
        m = self.member("own")
        ends, states = [], []
        for fault, at in (("boom", 3), ("leave", 8), ("nan", 11), ("full", 14), ("readonly", 20), ("none", 0)):
            ends.append(m.ended(m.submit(fault, at)))
            states.append(m.status)
        return {"member": m, "ends": ends, "states": states}

    def killed(self) -> dict:
        """kill -9 of the process, of what started it, then scancel, then a requeue by hand."""
        m = self.member("killed")
        job = m.submit()
        m.at_step(4)
        m.kill()
        result = {"member": m, "ends": [m.ended(job)], "stale_s": m.stale()}

        job = m.submit(pace=1.5, execute=False)
        m.at_step(2)
        begun = time.monotonic()
        os.kill(parent_of(m.status["pid"]), signal.SIGKILL)
        result["orphan"] = m.in_state("failed")
        result["orphan_s"] = time.monotonic() - begun
        result["ends"].append(m.ended(job))

        job = m.submit()
        m.at_step(m.steps()[-1][1] + 2)
        self.cluster("scancel", job)
        result["cancelled"] = m.in_state("cancelled", "preempted", "failed")
        result["ends"].append(m.ended(job))

        job = m.submit()
        m.at_step(m.steps()[-1][1] + 2)
        self.cluster("scontrol", "requeue", job)
        result["requeued"] = m.in_state("preempted", "cancelled", "failed")
        result["ends"].append(m.ended(job))
        return result

    def preempted(self) -> dict:
        """Preempted by a job of a higher partition that requests the same device."""
        m = self.member("preempted")
        job = m.submit(options="--time=10 --gres=slot:1 --signal=B:USR1@60")
        m.at_step(8)
        higher = self.cluster("sbatch", "--parsable", "-p", "high", "--gres=slot:1", "-o", "/dev/null", "--wrap", "sleep 4")
        state = m.in_state("preempted", "failed", "cancelled", "done")
        return {"member": m, "state": state, "ends": [m.ended(job), m.ended(higher.stdout.strip())],
                "restarts": m.facts(job).get("Restarts")}  # fmt: skip

    def short_limits(self) -> dict:
        """Steps of 140 seconds under a limit of two minutes, whose warning SLURM gives up to 30 seconds early."""
        m = self.member("limits")
        job = m.submit(pace=70 * LIMIT / STEPS, options=f"--time={LIMIT} --signal=B:USR1@1")
        return {"member": m, "ends": [m.ended(job)], "restarts": m.facts(job).get("Restarts")}

    def hanging(self) -> dict:
        m = self.member("hanging")
        end = m.ended(m.submit("hang", 8, options=f"--time={LIMIT} --signal=B:USR1@1"))
        stale_s = m.stale()
        return {"member": m, "stale_s": stale_s, "ends": [end, m.ended(m.submit())]}

    def daemons(self) -> dict:
        """slurmd killed, slurmctld restarted, both while the job is between its steps."""
        m = self.member("daemons")
        job = m.submit("clock", 10)
        m.at_step(3)
        self.cluster.stop_daemon("slurmd", signal.SIGKILL)
        self.cluster.start_daemon("slurmd")
        self.cluster.stop_daemon("slurmctld")
        m.at_step(9)  # it goes on without
        self.cluster.start_daemon("slurmctld")
        return {"member": m, "ends": [m.ended(job)]}

    def twice(self) -> dict:
        """Submitted twice at once."""
        m = self.member("twice")
        jobs = [m.submit(), m.submit()]
        return {"member": m, "ends": [m.ended(job) for job in jobs]}

    def sweep(self) -> dict:
        """A sweep of two members that train, submitted twice at once, and its report."""
        question = self.base / "question.yaml"
        words = [word for word in TINY if not word.startswith("name=")]
        question.write_text(json.dumps({"overrides": [*words, "cluster.cpus=1"], "grid": {"seed": [0, 1]}}))
        home = self.base / "sweep" / "question"
        submit = ["submit", str(question), "launcher=slurm", f"runs={home.parent}"]
        with ThreadPoolExecutor(2) as pool:
            output = list(pool.map(self.sweep_command, [submit, submit]))
        end = time.monotonic() + PATIENCE
        ask = ["status", str(home), "format=json"]
        while json.loads((status := self.sweep_command(ask)).stdout)["counts"] != {"done": 2}:
            assert time.monotonic() < end, status
            time.sleep(2)
        report = self.sweep_command(["report", str(home)])
        return {"outputs": [one.stdout for one in output], "exit": status.returncode, "home": home, "report": report}

    def sweep_command(self, arguments: list[str]) -> subprocess.CompletedProcess:
        return self.cluster(sys.executable, "-m", "ragaf_exp.sweep", *arguments, timeout=PATIENCE, cwd=ROOT,
                            env={"OMP_NUM_THREADS": "1"})  # fmt: skip

    def two_tasks(self) -> dict:
        """Two processes of one job, on a host whose name is no loopback address."""
        m = self.member("two_tasks")
        job = m.submit(tasks=2, view=OTHER_ADDRESS)
        m.at_step(4)
        return {"member": m, "listening": listening(m.status["pid"]), "ends": [m.ended(job)]}

    def two_tasks_stopped(self) -> dict:
        m = self.member("two_tasks_stopped")
        job = m.submit(tasks=2)
        m.at_step(8)
        self.cluster("scancel", "--signal=USR1", job)  # as at a time limit's warning
        state = m.in_state("preempted", "failed", "done")
        return {"member": m, "state": state, "ends": [m.ended(job)], "restarts": m.facts(job).get("Restarts")}


CHAINS = ("own_faults", "killed", "hanging", "short_limits", "undisturbed", "preempted", "two_tasks",
          "two_tasks_stopped", "daemons", "twice", "sweep")  # fmt: skip


@pytest.fixture(scope="session")
def stories(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future]:
    """All chains, side by side; $RAGAF_SLURM_CHAINS: some of them."""
    chains = Chains(cluster, tmp_path_factory.mktemp("runs"))
    names = os.environ.get("RAGAF_SLURM_CHAINS", " ".join(CHAINS)).split()
    with ThreadPoolExecutor(len(CHAINS)) as pool:
        yield {name: pool.submit(getattr(chains, name)) for name in names}


@pytest.fixture
def story(stories: dict[str, Future]):
    def call(name: str) -> dict:
        if name not in stories:
            pytest.skip("not asked for")
        return stories[name].result()

    return call


@pytest.fixture
def same(story):
    """same(chain): that it came to the undisturbed run's end, and repeated at most one interval at each start."""

    def call(result: dict, repeated: int = INTERVAL) -> None:
        member, other = result["member"], story("undisturbed")["member"]
        assert member.status["state"] == "done" and member.status["error"] is None
        assert len(other.weights()) == 3 and member.weights() == other.weights()
        assert all(0 <= before - first + 1 <= repeated for before, first in member.starts()), member.starts()
        assert {step for _, step in member.steps()} == set(range(1, STEPS + 1))

    return call


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def listening(*pids: int) -> list[str]:
    """Addresses that processes listen at."""
    output = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[3] for line in output if any(f"pid={pid}," in line for pid in pids)]


def test_an_undisturbed_run(story, same):
    result = story("undisturbed")
    assert result["ends"] == ["COMPLETED"] and result["member"].status["job"]
    same(result)


def test_faults_of_the_run_itself(story, same):
    result = story("own_faults")
    boom, leave, nan, full, readonly, end = result["states"]
    assert result["ends"] == ["FAILED"] * 5 + ["COMPLETED"]
    assert (boom["state"], boom["error"]) == ("failed", "boom")
    assert leave["state"] == "running"  # the process could write no more; `killed` waits until that is recognised
    assert nan["state"] == "failed" and "not finite" in nan["error"]
    assert full["state"] == "failed" and "No space left" in full["error"]
    assert readonly["state"] == "failed" and "Read-only" in readonly["error"]
    same(result)


def test_kills_a_cancellation_and_a_requeue_by_hand(story, same):
    result = story("killed")
    assert result["stale_s"] < NOTICED_S
    assert result["orphan_s"] < NOTICED_S and "parent process has ended" in result["orphan"]["error"]
    assert result["cancelled"]["state"] == "cancelled"
    assert result["requeued"]["state"] == "preempted"
    assert result["ends"] == ["FAILED", "FAILED", "CANCELLED", "COMPLETED"]
    same(result)
    assert all(first == before + 1 for before, first in result["member"].starts()[1:])  # all but kill -9 left time to save


def test_preemption(story, same):
    result = story("preempted")
    assert result["state"]["state"] == "preempted" and result["restarts"] == "1"
    assert result["ends"] == ["COMPLETED", "COMPLETED"]
    same(result, repeated=0)


def test_limits_shorter_than_the_run(story, same):
    result = story("short_limits")
    assert result["ends"] == ["COMPLETED"] and int(result["restarts"]) >= 1
    same(result, repeated=0)


def test_a_run_that_hangs(story, same):
    result = story("hanging")
    assert result["ends"] == ["TIMEOUT", "COMPLETED"] and result["stale_s"] < NOTICED_S
    same(result)


def test_daemons_that_die_and_a_clock_that_jumps_back(story, same):
    result = story("daemons")
    assert result["ends"] == ["COMPLETED"] and not result["member"].starts()
    same(result)


def test_two_submissions_at_once(story, same):
    result = story("twice")
    assert "COMPLETED" in result["ends"] and not result["member"].starts()
    same(result)


def test_a_sweep_submitted_twice_at_once(story):
    """Each member is queued once, and by the sweep's own commands comes to the same weights."""
    result = story("sweep")
    assert result["exit"] == 0
    queued = sorted(one.splitlines()[0] for one in result["outputs"])
    assert queued[0].startswith("2 of 2") and queued[1].startswith("nothing to queue")
    assert result["report"].returncode == 0, result["report"].stderr
    page = (result["home"] / "sweep.html").read_text()
    assert "2 of 2" in page and 'class="missing"' not in page
    folders = [path.parent for path in result["home"].glob("*/status.json")]
    assert [json.loads((path / "status.json").read_text())["state"] for path in folders] == ["done"] * 2
    remaining = [path.read_bytes() for path in result["home"].glob(f"*/checkpoints/coarse/{STEPS:08d}/model.safetensors")]
    assert story("undisturbed")["member"].weights()["model.safetensors"] in remaining and len(set(remaining)) == 2


def test_two_tasks_train_as_one(story, cluster):
    """They reach the loss of one process, and listen on loopback only."""
    one, two = story("undisturbed")["member"], story("two_tasks")["member"]
    assert story("two_tasks")["ends"] == ["COMPLETED"] and two.status["state"] == "done"
    assert two.losses() == pytest.approx(one.losses(), rel=1e-3)
    place = Path("checkpoints/coarse") / f"{STEPS:08d}" / "model.safetensors"
    ours, theirs = load_file(two.folder / place), load_file(one.folder / place)
    assert all((ours[key] - theirs[key]).abs().max() < 1e-3 for key in theirs)
    assert [step for _, step in two.steps(rank=1)] == list(range(1, STEPS + 1))
    assert story("two_tasks")["listening"], "gloo listens somewhere"
    assert all(address.startswith(("127.", "[::1]")) for address in story("two_tasks")["listening"])


def test_two_tasks_stop_and_go_on_together(story):
    result = story("two_tasks_stopped")
    member, other = result["member"], story("two_tasks")["member"]
    assert result["state"]["state"] == "preempted" and result["restarts"] == "1" and result["ends"] == ["COMPLETED"]
    assert member.weights() == other.weights()
    for rank in (0, 1):
        assert [step for _, step in member.steps(rank)] == list(range(1, STEPS + 1))


def test_nothing_listens_beyond_loopback(stories, cluster):
    pids = [cluster.pid(name) for name in ("slurmctld", "slurmd", "slurmdbd", "mariadbd", "munged")]
    assert all(pids)
    addresses = listening(*pids)
    assert len(addresses) >= 3 and all(address.startswith("127.") for address in addresses)
