"""A real SLURM of one node with accounting, in a folder, without systemd; its daemons listen on loopback only.

As a program it keeps a cluster up until Ctrl-C: python tests/slurm/cluster.py [FOLDER]
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SLURM_CONF = """
ClusterName=tests
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits for its old credential to expire; SLURM takes no less than 5 s, and 120 s else
AuthInfo=socket={base}/run/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=15
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
GresTypes=slot
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[2]}
AccountingStoragePass={base}/run/munge.socket
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=slot:1 State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes={node} Default=NO MaxTime=INFINITE State=UP PriorityTier=10
"""
DBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.socket
DbdHost={node}
DbdAddr=127.0.0.1
DbdPort={ports[2]}
SlurmUser=root
PidFile={base}/run/slurmdbd.pid
LogFile={base}/log/slurmdbd.log
CommunicationParameters=NoInAddrAny
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
"""
DAEMONS = ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged")  # in the order in which they are stopped


class Cluster:
    """cpus: advertised; they may exceed the machine's."""

    def __init__(self, base: Path, cpus: int = 8):
        self.base, self.cpus = base.resolve(), cpus
        self.node = socket.gethostname().partition(".")[0]
        self.ports = free_ports(3)
        self.environment = {**os.environ, "SLURM_CONF": str(self.base / "etc/slurm.conf")}
        self.prefix = self._own_hosts()

    def start(self) -> None:
        """Half a minute or less. RuntimeError with the last lines of all logs where a daemon does not come up."""
        for name in ("etc", "run", "log", "state", "spool", "sql"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        try:
            self._munge()
            self._configure()
            self._accounting()
            self.start_daemon("slurmctld")
            self.start_daemon("slurmd")
            self.wait("an idle node", lambda: "idle" in self("sinfo", "-h", "-o", "%T").stdout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all jobs, then all daemons."""
        if self.pid("slurmctld"):
            self("scancel", "--me")
            end = time.monotonic() + 20
            while self("squeue", "-h").stdout and time.monotonic() < end:
                time.sleep(0.2)
        for name in DAEMONS:
            self.stop_daemon(name)

    def __call__(self, *command: object, timeout: float = 30, **more) -> subprocess.CompletedProcess:
        """One of SLURM's commands."""
        words = [str(word) for word in command]
        return subprocess.run(
            words, capture_output=True, text=True, timeout=timeout, env=self.environment | more.pop("env", {}), **more
        )

    def start_daemon(self, name: str) -> None:
        """slurmctld or slurmd."""
        self._spawn([name])
        answers = {"slurmctld": lambda: not self("scontrol", "ping").returncode, "slurmd": lambda: self.pid("slurmd")}
        self.wait(name, answers[name])

    def stop_daemon(self, name: str, number: int = signal.SIGTERM, patience: float = 30) -> None:
        pid, end = self.pid(name), time.monotonic() + patience
        if pid:
            os.kill(pid, number)
        while pid and self.pid(name) == pid:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        (self.base / f"run/{name}.pid").unlink(missing_ok=True)

    def pid(self, name: str) -> int | None:
        """Process id of a running daemon; None for a zombie."""
        try:
            pid = int((self.base / f"run/{name}.pid").read_text())
            output = Path(f"/proc/{pid}/stat").read_text()
        except (OSError, ValueError):
            return None
        command, _, rest = output.partition("(")[2].rpartition(")")
        return pid if command == name[:15] and rest.split()[0] not in "ZX" else None

    def wait(self, what: str, ready: Callable[[], object], patience: float = 60) -> None:
        end = time.monotonic() + patience
        while not ready():
            if time.monotonic() > end:
                logs = "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in (self.base / "log").glob("*.log"))
                raise RuntimeError(f"no {what} within {patience:g} s\n{logs}")
            time.sleep(0.1)

    def _own_hosts(self) -> list[str]:
        """SLURM binds to what the host's name resolves to: where that is not loopback, it gets a separate hosts file."""
        try:
            if socket.gethostbyname(self.node) == "127.0.0.1":
                return []
        except OSError:
            pass
        hosts = self.base / "etc/hosts"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        others = [line for line in Path("/etc/hosts").read_text().splitlines() if self.node not in line.split()]
        hosts.write_text("\n".join([f"127.0.0.1 localhost {self.node}", *others, ""]))
        return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]

    def _munge(self) -> None:
        run, key = self.base / "run", self.base / "etc/munge.key"
        if not key.exists():
            subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True)
        self._spawn([
            "munged", f"--key-file={key}", f"--socket={run}/munge.socket", f"--pid-file={run}/munged.pid",
            f"--log-file={self.base}/log/munged.log", f"--seed-file={run}/munge.seed",
        ])  # fmt: skip
        self.wait("munged", lambda: not self("munge", "-n", "-S", run / "munge.socket").returncode)

    def _configure(self) -> None:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
        known = {"base": self.base, "node": self.node, "ports": self.ports, "cpus": self.cpus, "memory": memory}
        (self.base / "etc/slurm.conf").write_text(SLURM_CONF.format(**known))
        (self.base / "etc/gres.conf").write_text(f"NodeName={self.node} Name=slot Count=1\n")
        dbd = self.base / "etc/slurmdbd.conf"
        dbd.write_text(DBD_CONF.format(**known))
        dbd.chmod(0o600)

    def _accounting(self) -> None:
        """mariadb and slurmdbd: without them the end of a past job is unknown."""
        run, data = self.base / "run", self.base / "sql/data"
        if not (data / "mysql").exists():
            subprocess.run(
                ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db",
                 "--auth-root-authentication-method=socket", "--auth-root-socket-user=root", "--skip-name-resolve"],
                check=True, capture_output=True,
            )  # fmt: skip
        self._spawn(
            ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-networking",
             f"--socket={run}/sql.sock", f"--pid-file={run}/mariadbd.pid", "--innodb-buffer-pool-size=64M",
             "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0",
             f"--log-error={self.base}/log/mariadbd.log"], background=True,
        )  # fmt: skip
        sql = ["mariadb", "--no-defaults", f"--socket={run}/sql.sock", "-u", "root", "-e", "select 1"]
        self.wait("mariadbd", lambda: not self(*sql).returncode)
        self._spawn(["slurmdbd"], env={"MYSQL_UNIX_PORT": str(run / "sql.sock")})
        self.wait("slurmdbd", lambda: not self("sacctmgr", "-n", "show", "cluster").returncode)
        self("sacctmgr", "-iQ", "add", "cluster", "tests")

    def _spawn(self, command: list[str], env: dict[str, str] | None = None, background: bool = False) -> None:
        with open(self.base / "log" / f"{command[0]}.out.log", "a") as log:
            process = subprocess.Popen(
                [*self.prefix, *command], env=self.environment | (env or {}), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        if not background and process.wait():
            raise RuntimeError(f"{command[0]} did not start:\n{(self.base / f'log/{command[0]}.out.log').read_text()}")


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    if os.getuid():
        return "not root"
    absent = [name for name in (*DAEMONS, "sbatch", "mariadb-install-db") if shutil.which(name) is None]
    return f"{', '.join(absent)}: not installed (tests/slurm/install.sh does)" if absent else ""


def free_ports(count: int) -> list[int]:
    """Different ones, for several clusters may run on a machine."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    result = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return result


if __name__ == "__main__":
    here = Cluster(Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp/slurm-tests"))
    here.start()
    print(f"export SLURM_CONF={here.environment['SLURM_CONF']}", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        here.stop()
