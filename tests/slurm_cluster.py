"""A real SLURM for one test: Debian's daemons on this machine, with munge, in a folder."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from repeatable import free_port

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONF = """\
ClusterName=mmq
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=30
MinJobAge=300
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1024 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes={host} MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


class SlurmCluster:
    """The controller and one node."""

    def __init__(self, folder: Path) -> None:
        missing = [name for name in DAEMONS if not shutil.which(name, path=PATH)]
        if missing:
            pytest.skip(f"no SLURM on this machine: {', '.join(missing)} cannot be found")
        if os.getuid() != 0:
            pytest.skip("SLURM's daemons need root")
        self.folder, self.env = folder, os.environ | {"PATH": PATH}
        host = os.uname().nodename.partition(".")[0]
        text = CONF.format(host=host, folder=folder, controller=free_port(), node=free_port(),
                           cpus=os.cpu_count())  # fmt: skip
        for name in ("spool", "state"):
            (folder / name).mkdir()
        self.conf = folder / "slurm.conf"
        self.conf.write_text(text)
        devices = "".join(f"Name=gpu File={path}\n" for path in ("/dev/null", "/dev/zero"))
        (folder / "gres.conf").write_text(devices)  # nothing uses them
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.env["SLURM_CONF"] = str(self.conf)
        self.daemons: list[subprocess.Popen[bytes]] = []
        self._start(
            "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        self._start("slurmctld", "-D", "-f", self.conf)
        self._start("slurmd", "-D", "-f", self.conf, "-N", host)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _start(self, *command: object) -> None:
        with (self.folder / "daemons.log").open("ab") as file:
            self.daemons.append(
                subprocess.Popen([*map(str, command)], env=self.env, stdout=file, stderr=file)
            )

    def run(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.env, check=True, capture_output=True, text=True
        ).stdout

    def _wait(self) -> None:
        end = time.monotonic() + 600
        while time.monotonic() < end:
            with suppress(subprocess.CalledProcessError):
                if "idle" in self.run("sinfo", "--noheader", "--format=%t"):
                    return
            if any(daemon.poll() is not None for daemon in self.daemons):
                break
            time.sleep(0.3)
        logs = "\n".join(p.read_text()[-1500:] for p in self.folder.glob("*.log"))
        raise AssertionError(f"SLURM did not start: {logs}")

    def stop(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.run("scancel", "--signal=KILL", "--full", "--user=root")
        for daemon in reversed(self.daemons):
            for each in [*psutil.Process(daemon.pid).children(recursive=True), daemon]:
                each.kill()
            daemon.wait()


PATH = os.environ["PATH"] + os.pathsep + "/usr/sbin"


@contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    folder = Path(tempfile.mkdtemp(prefix="mmq-slurm-"))
    folder.chmod(0o755)
    cluster = None
    try:
        cluster = SlurmCluster(folder)
        yield cluster
    finally:
        if cluster is not None:
            cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
