"""A Slurm cluster of two nodes on one machine, with Debian's daemons and without accounting.

Configuration, keys, state and logs are in one folder. Node n2
also has a GPU as far as Slurm knows (a count, no device), so that requests for a GPU can be tested.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "srun", "munged")
NODES = ("n1", "n2")

# RealMemory need not exist: it only decides how many jobs share a node.
CONFIGURATION = """\
ClusterName=apao
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=5
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=64000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=64000 Gres=gpu:1
PartitionName=work Nodes=n1,n2 Default=YES LLN=YES
PartitionName=gpu Nodes=n2
"""


class NoCluster(Exception):
    """Raised with the reason why no cluster can be started here."""


@dataclass
class Finished:
    """A finished job, as in Slurm's completion log."""

    number: int
    name: str
    state: str
    partition: str
    node: str


def install() -> None:
    """Install the daemons from the distribution's packages if they are missing."""
    if os.geteuid() != 0:
        raise NoCluster("Slurm's daemons want to be started by root")
    if all(map(shutil.which, PROGRAMS)):
        return
    if shutil.which("apt-get") is None:
        raise NoCluster("Slurm is not installed, and there is no apt-get to install it with")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    for prepare in ([], ["apt-get", "update"]):
        if prepare:
            subprocess.run(prepare, env=environment, stdout=subprocess.DEVNULL, check=False)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
    raise NoCluster(f"apt-get cannot install {', '.join(PACKAGES)}: {done.stderr.strip()[-300:]}")


def free_ports(count: int) -> list[int]:
    """Free ports of this machine."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """The running cluster, as a context manager that always stops it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment in which Slurm's commands use this cluster, and no other that the machine may belong to."""
        return {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }

    def __enter__(self) -> "Cluster":
        self._configure()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self, *arguments: str, check: bool = True) -> str:
        """Output of a Slurm command."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def finished(self) -> list[Finished]:
        """Every finished job, in the order of their ends."""
        jobs = []
        for line in (self.folder / "jobs.txt").read_text().splitlines():
            values = dict(field.split("=", 1) for field in line.split() if "=" in field)
            name, state, partition, node = (values[key] for key in ("Name", "JobState", "Partition", "NodeList"))
            jobs.append(Finished(int(values["JobId"]), name, state, partition, node))
        return jobs

    def gpus(self) -> dict[int, str]:
        """Requested GPUs of every recent job, ``gres:gpu:1`` or ``N/A``, which the completion log lacks."""
        printed = self.command("squeue", "--states=all", "--noheader", "--Format=JobID,tres-per-job")
        return {int(number): asked for number, asked in map(str.split, printed.splitlines())}

    def stop(self) -> None:
        """Cancel the jobs, then stop the daemons."""
        if len(self.daemons) > 1:
            self.command("scancel", "--user", "root", check=False)
            deadline = time.monotonic() + 40
            while self.command("squeue", "--noheader", check=False).strip() and time.monotonic() < deadline:
                time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()

    def _configure(self) -> None:
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(mode=0o700)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        host = socket.gethostname().partition(".")[0]
        # At least two, because the study's measurements request two.
        cpus = max(2, (os.cpu_count() or 1) // len(NODES))
        text = CONFIGURATION.format(host=host, ports=free_ports(3), folder=self.folder, cpus=cpus)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text("NodeName=n2 Name=gpu File=/dev/null\n")
        # Inside a job the plugin removes SLURM_CONF from srun's environment.
        srun = self.folder / "bin/srun"
        srun.parent.mkdir()
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)

    def _start(self) -> None:
        folder = self.folder
        munge = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        options = [f"--{name}={folder / file}" for name, file in munge.items()]
        self._daemon("munged", "--foreground", "--force", f"--log-file={folder / 'munge.log'}", *options)
        self._wait((folder / "munge.socket").exists, "munged")
        self._daemon("slurmctld", "-D")
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node)
        self._wait(self._idle, "the nodes")

    def _daemon(self, *command: str) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            environment = {**os.environ, **self.environment}
            # In its own session, so that Ctrl-C reaches only the tests, which then stop the cluster.
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.daemons.append(process)

    def _idle(self) -> bool:
        # n2 is listed in both partitions.
        return self.command("sinfo", "-h", "-N", "-o", "%t", check=False).split() == ["idle"] * (len(NODES) + 1)

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self.daemons):
                logs = [path.read_text(errors="replace")[-1500:] for path in sorted(self.folder.glob("*.log"))]
                raise AssertionError(f"{what} did not start:\n" + "\n".join(logs))
            time.sleep(0.2)
