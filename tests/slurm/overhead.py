"""Overhead of a sweep's member over an empty job, on the real one-node SLURM; not part of the suite.

    python tests/slurm/overhead.py [MEMBERS]

Three arrays of as many jobs, two at a time: empty ones, ones that import the runner's entry (which a member does too),
and members of a sweep whose experiment does nothing. Ratio: what a member takes longer than an empty job, in imports of the
entry, alone. On a machine that does other work it varies.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster import Cluster

sys.path.insert(0, str(Path(__file__).parents[1]))
from sweep_checkout import make_checkout

SINGLE = 8  # processes whose time is taken one by one
PARALLEL = 2  # jobs at a time


def array(cluster: Cluster, place: Path, members: int, command: str) -> float:
    """Seconds until all jobs of an array are over."""
    begun = time.monotonic()
    output = cluster("sbatch", "--parsable", f"--array=0-{members - 1}%{PARALLEL}", "--requeue", "-o", "/dev/null",
                   "-D", place, "--mem=1000M", "--wrap", command)  # fmt: skip
    return over(cluster, output.stdout.strip(), begun)


def over(cluster: Cluster, job: str, begun: float) -> float:
    while cluster("squeue", "-h", "-j", job).stdout.strip():
        time.sleep(0.5)
    return time.monotonic() - begun


def sweep(cluster: Cluster, place: Path, name: str, members: int) -> str:
    """Submit members; the array's number."""
    words = f"overrides: [cluster.memory_gb=1, cluster.cpus=1, cluster.parallel={PARALLEL}]"
    (place / "sweeps" / f"{name}.yaml").write_text(f"{words}\ngrid: {{seed: {[i + 10 for i in range(members)]}}}\n")
    output = cluster(sys.executable, "-m", "ragaf_exp.sweep", "submit", name, "launcher=slurm", cwd=place, timeout=600)
    assert output.returncode == 0, output.stderr
    return json.loads((place / "runs" / name / ".sweep" / "jobs" / "1.json").read_text())["job"]


def processor_time(command: list[str], place: Path) -> float:
    """Seconds, the median of a few."""
    result = []
    for _ in range(SINGLE):
        for status in place.glob("runs/cost/*/status.json"):
            status.unlink()  # a member that is done is not run again
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=place, check=True, capture_output=True, env={"OMP_NUM_THREADS": "1"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return sorted(result)[SINGLE // 2]


def wall_time(command: list[str]) -> float:
    """Seconds, the median of a few."""
    result = []
    for _ in range(SINGLE):
        begun = time.monotonic()
        subprocess.run(command, check=True)
        result.append(time.monotonic() - begun)
    return sorted(result)[SINGLE // 2]


def measure(cluster: Cluster, place: Path, members: int) -> dict[str, float]:
    """All figures, in seconds."""
    entry = f"{sys.executable} -c 'import ragaf_exp.run'"
    begun = time.monotonic()
    job = sweep(cluster, place, "cost", members)
    submitted = time.monotonic() - begun
    took = {"members": over(cluster, job, begun + submitted), "import": array(cluster, place, members, entry),
            "empty": array(cluster, place, members, "true")}  # fmt: skip
    done = list((place / "runs" / "cost").glob("*/attempts"))
    assert len(done) == members, f"{len(done)} of {members} members ran"
    each = {name: (took[name] - took["empty"]) / members for name in ("members", "import")}
    record = place / "runs" / "cost" / ".sweep" / "jobs" / "1.json"
    member = [sys.executable, json.loads(record.read_text())["snapshot"], "member", str(record), "0"]
    alone = {"member": member, "import": [sys.executable, "-c", "import ragaf_exp.run"]}
    cost = {f"processor time, {name}": processor_time(command, place) for name, command in alone.items()}
    over_empty = {f"over empty, {name}": value for name, value in each.items()}
    once = wall_time(alone["import"])
    ratio = PARALLEL * each["members"] / once
    return {"submission": submitted, **took, **over_empty, "import, alone": once, "ratio": ratio, **cost}


def main(members: int) -> None:
    base = Path(tempfile.mkdtemp(prefix="ragaf_exp-overhead-"))
    base.chmod(0o755)  # munge asks for it
    cluster = Cluster(base / "slurm", cpus=2)
    try:
        cluster.start()
        for name, value in measure(cluster, make_checkout(base / "checkout"), members).items():
            print(f"{name:32} {value:8.2f}", flush=True)
    finally:
        cluster.stop()
        shutil.rmtree(base)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
