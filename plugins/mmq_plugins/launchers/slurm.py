"""Workers as the tasks of a SLURM array job, submitted with a plain sbatch script."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmq.contracts import Launcher, LaunchRequest, Output, Workers, WorkerState
from mmq.errors import InputError

INTERVAL = 2.0  # seconds between queries to SLURM's controller
STOP_TIMEOUT = 120  # seconds for cancelled tasks to release their work
TASK_ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL",
              "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")  # fmt: skip
REQUEUES = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")  # such a task comes back: --requeue
FORGOTTEN = "Invalid job id"  # what scontrol reports about a job that ended a while ago
SCRIPT = """\
#!/bin/bash
{directives}

# Each task is one worker. Workers share the study through MMQ_STORAGE and MLFLOW_TRACKING_URI,
# which sbatch passes on from the environment: the script contains no password.
export MMQ_WORKER="$SLURM_ARRAY_TASK_ID"
export MMQ_WORKER_PLACE="$SLURMD_NODENAME (SLURM job ${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID)"
{exports}
export TQDM_DISABLE=1
unset MLFLOW_RUN_ID
cd {folder} || exit 1

# Before the time limit (SIGUSR1), the worker re-queues its trial, and the task is queued again.
# SIGTERM announces preemption or scancel: the worker re-queues its trial; SLURM queues a
# preempted task again by itself.
requeue="" early="" worker=""
stop() {{ if [ -n "$worker" ]; then kill -TERM "$worker" 2>/dev/null; else early=yes; fi; }}
trap 'requeue=yes; stop' USR1
trap stop TERM INT
{command} &
worker=$!
[ -z "$early" ] || stop  # a signal arrived before the worker's process id was known
wait "$worker"; code=$?
while kill -0 "$worker" 2>/dev/null; do  # a trapped signal ends the wait early
    wait "$worker"; code=$?
done
if [ -n "$requeue" ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
    sleep 60  # SLURM ends this task meanwhile
fi
exit "$code"
"""


@dataclass(frozen=True)
class Slurm(Launcher):
    """Tasks of an array job.

    partition, account, qos, time, memory: as sbatch has them; empty: the cluster's defaults. cpus:
    per worker. grace: seconds before the time limit, or after a preemption's warning, in which a
    worker re-queues its trial. sbatch: further options of sbatch, such as "--constraint=a100".
    logs: folder of the tasks' output, which this machine should see, too.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = ""
    memory: str = ""
    cpus: int = 1
    grace: int = 120
    sbatch: str = ""
    logs: str = "slurm-logs"

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ValueError(f"cpus: {self.cpus} is not at least 1")
        if self.grace < 10:
            raise ValueError(f"grace: {self.grace} is not at least 10 seconds")
        try:
            shlex.split(self.sbatch)
        except ValueError as error:
            raise ValueError(
                f"sbatch: {self.sbatch!r} is not a list of options ({error})"
            ) from None

    def check(self, request: LaunchRequest) -> None:
        """InputError if there is no SLURM on this machine."""
        missing = [name for name in ("sbatch", "squeue", "scontrol") if not shutil.which(name)]
        if missing:
            raise InputError(
                f"launcher: {', '.join(missing)} cannot be found. Run the command on a machine "
                f"that submits to SLURM, or print the job's script with --dry-run."
            )

    def spans_machines(self) -> bool:
        """Unless this machine is the cluster's only node."""
        names = _run("sinfo", "--noheader", "--Node", "--format=%N").split()
        return set(names) != {os.uname().nodename.partition(".")[0]}

    def preview(self, request: LaunchRequest) -> str:
        """The script of the array job."""
        return self.script(request)

    def script(self, request: LaunchRequest) -> str:
        """The script that `start` submits."""
        (command,) = {tuple(words) for words in request.commands}  # an array has one script
        exports = {**request.environment, "OMP_NUM_THREADS": str(self.cpus)}
        return SCRIPT.format(
            directives="\n".join(map(_directive, self._directives(request))),
            exports="\n".join(f"export {k}={shlex.quote(v)}" for k, v in exports.items()),
            folder=shlex.quote(os.getcwd()),
            command=shlex.join([sys.executable, "-m", "mmq", *command]),
        )

    def _directives(self, request: LaunchRequest) -> list[str]:
        settings = {"partition": self.partition, "account": self.account, "qos": self.qos,
                 "time": self.time, "mem": self.memory}  # fmt: skip
        return [
            f"--job-name=mmq-{request.name}",
            f"--array=1-{len(request.commands)}",
            "--ntasks=1",
            f"--cpus-per-task={self.cpus}",
            *([f"--gpus-per-task={request.gpus}"] if request.gpus else []),
            *(f"--{name}={value}" for name, value in settings.items() if value),
            f"--signal=B:USR1@{self.grace}",
            "--requeue",
            "--open-mode=append",
            f"--output={str(Path(self.logs).absolute()).replace('%', '%%')}/%A_%a.log",
            *shlex.split(self.sbatch),
        ]

    def start(self, request: LaunchRequest, output: Output) -> Workers:
        """Submit the job; tasks wait in the queue until SLURM starts them."""
        Path(self.logs).mkdir(parents=True, exist_ok=True)
        job = _run("sbatch", "--parsable", stdin=self.script(request)).strip().partition(";")[0]
        logs = Path(self.logs).absolute()
        output(1, f"is task 1 of SLURM job {job}; the tasks' output is in {logs}")
        return SlurmWorkers(job, len(request.commands), logs, output)


@dataclass
class SlurmWorkers(Workers):
    """The tasks of a submitted job, followed through SLURM's controller."""

    job: str
    count: int
    logs: Path
    output: Output
    _states: dict[int, WorkerState] = field(default_factory=dict)
    _read: dict[int, int] = field(default_factory=dict)  # by task: bytes of its output
    _asked: float = 0.0

    def poll(self) -> Sequence[WorkerState]:
        """The state of every task, queried at most every two seconds."""
        if time.monotonic() >= self._asked + INTERVAL:
            self._states |= self._ask()
            self._asked = time.monotonic()
            for number in range(1, self.count + 1):
                self._relay(number)
        return [self._states.get(k, WorkerState(k)) for k in range(1, self.count + 1)]

    def _ask(self) -> dict[int, WorkerState]:
        """The states that have changed; none while the controller does not respond."""
        try:
            return task_states(_run("scontrol", "--oneliner", "show", "job", self.job))
        except (InputError, OSError) as error:
            if FORGOTTEN not in str(error):
                return {}
        # the controller has forgotten the job: the accounting database may know it
        text = _try("sacct", "--noheader", "--parsable2", "--allocations", "--jobs", self.job,
                    "--format=JobID,State,ExitCode,NodeList")  # fmt: skip
        states = accounted_states(text or "")
        rest = {k: self._states[k] for k in self._states if self._states[k].code is None}
        return {k: WorkerState(k, s.place, s.since, 1) for k, s in rest.items()} | states

    def _relay(self, number: int) -> None:
        """Pass on what a task has printed, if its log can be read here."""
        try:
            with (self.logs / f"{self.job}_{number}.log").open("rb") as file:
                file.seek(self._read.get(number, 0))
                text = file.read()
        except OSError:
            return
        lines = text[: text.rfind(b"\n") + 1]
        self._read[number] = self._read.get(number, 0) + len(lines)
        for line in lines.decode(errors="replace").splitlines():
            self.output(number, line)

    def stop(self) -> None:
        """Cancel the job, and wait until its tasks have released their trials."""
        # the batch shell passes SIGTERM on to the worker; scancel alone kills steps after KillWait
        _try("scancel", "--batch", "--signal=TERM", self.job)
        until = time.monotonic() + STOP_TIMEOUT
        _try("scancel", "--state=PENDING", self.job)
        while time.monotonic() < until:
            self._asked = 0.0
            if all(s.code is not None for s in self.poll()):
                return
            time.sleep(0.5)
        _try("scancel", self.job)


def _directive(option: str) -> str:
    """An option of sbatch as a line of the script, in quotes if it has blanks."""
    return f"#SBATCH {shlex.quote(option) if any(map(str.isspace, option)) else option}"


def task_states(text: str) -> dict[int, WorkerState]:
    """The states in the output of `scontrol --oneliner show job`, by task.

    Tasks that have not started share one line, and have none of their own.
    """
    states = {}
    for line in text.splitlines():
        facts = dict(re.findall(r"(\S+?)=(\S*)", line))
        task = facts.get("ArrayTaskId", "")
        if not task.isdecimal():
            for waiting in _tasks(task):
                cancelled = facts.get("JobState", "") == "CANCELLED"
                states[waiting] = WorkerState(waiting, code=-15 if cancelled else None)
            continue
        number, state = int(task), facts.get("JobState", "")
        place = f"{facts['BatchHost']} (SLURM job {facts['ArrayJobId']}_{task})" if facts.get(
            "BatchHost"
        ) else ""  # fmt: skip
        since = _seconds(facts.get("StartTime", "")) if place else None
        code = _code(state, facts.get("ExitCode", "0:0"))
        states[number] = WorkerState(number, place, since, code)
    return states


def _tasks(text: str) -> list[int]:
    """Task numbers as SLURM writes them: 1-3,7 or 1-8%2."""
    numbers: list[int] = []
    for part in text.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            numbers += range(int(first), int(last or first) + 1)
    return numbers


def accounted_states(text: str) -> dict[int, WorkerState]:
    """The states in the output of `sacct`, by task."""
    states = {}
    for line in text.splitlines():
        job, state, code, nodes = (line.split("|") + [""] * 4)[:4]
        task = job.partition("_")[2]
        if task.isdecimal():
            states[int(task)] = WorkerState(
                int(task), f"{nodes} (SLURM job {job})", None, _code(state.split()[0], code)
            )
    return states


def _code(state: str, exit_code: str) -> int | None:
    """A task's exit code, or minus its signal; None while it waits, runs or is queued again."""
    if state not in TASK_ENDED or state in REQUEUES:
        return None
    code, _, signal = exit_code.partition(":")
    if int(signal or 0):
        return -int(signal)
    return int(code or 0) or (0 if state == "COMPLETED" else -15 if state == "CANCELLED" else 1)


def _seconds(text: str) -> float | None:
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None


def _run(*command: str, stdin: str = "") -> str:
    """The output of a command of SLURM; InputError with its message if it fails."""
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode:
        message = " ".join((result.stderr or result.stdout).split())
        raise InputError(f"launcher: {command[0]} failed: {message}")
    return result.stdout


def _try(*command: str) -> str | None:
    """The output of a command of SLURM; None if it fails."""
    try:
        return _run(*command)
    except (InputError, OSError):
        return None
