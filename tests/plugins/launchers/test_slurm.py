"""The job that the launcher submits: its script, how it is followed, and a real SLURM."""

import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest
from mmq_plugins.launchers.slurm import Slurm, SlurmWorkers, accounted_states, task_states
from slurm_cluster import slurm_cluster

from mmq.contracts import LaunchRequest, WorkerState
from mmq.testing import LauncherContract

SHOWN = "\n".join(
    f"JobId={k} ArrayJobId=7 {facts}"
    for k, facts in enumerate(
        (
            "ArrayTaskId=3-4%2 JobState=PENDING ExitCode=0:0 StartTime=Unknown",
            "ArrayTaskId=2 JobState=FAILED ExitCode=2:0 StartTime=2026-11-30T10:00:00 "
            "BatchHost=n2",
            "ArrayTaskId=1 JobState=RUNNING ExitCode=0:0 StartTime=2026-11-30T10:00:01 "
            "BatchHost=n1",
        ),
        start=7,
    )
)


def request(*command, count=3, gpus=0):
    return LaunchRequest("s", [list(command)] * count, gpus, {"MMQ_HOME": "/scratch/mmq home"})


def test_options_with_blanks_are_quoted_in_the_script(tmp_path, monkeypatch):
    (tmp_path / "my study").mkdir()
    monkeypatch.chdir(tmp_path / "my study")
    text = Slurm(logs="50%", sbatch="--comment='two words'").script(request("grid"))
    assert f"\n#SBATCH '--output={tmp_path}/my study/50%%/%A_%a.log'\n" in text
    assert "\n#SBATCH '--comment=two words'\n" in text


def test_the_script_requests_the_given_resources_and_is_valid_bash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slurm = Slurm(
        partition="gpu", account="vision", time="4:00:00", memory="32G", cpus=8, grace=90,
        sbatch="--constraint='a100|h100' --exclusive",
    )  # fmt: skip
    text = slurm.script(request("search", "--study", "two words", gpus=2))
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    for directive in ("--array=1-3", "--partition=gpu", "--account=vision", "--time=4:00:00",
                   "--mem=32G", "--cpus-per-task=8", "--gpus-per-task=2", "--signal=B:USR1@90",
                   "--requeue", "--constraint=a100|h100", "--exclusive"):  # fmt: skip
        assert f"#SBATCH {directive}" in directives
    assert "-m mmq search --study 'two words' &" in text
    assert "export MMQ_HOME='/scratch/mmq home'" in text
    assert "export OMP_NUM_THREADS=8" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(("signum", "requeued"), [("USR1", True), ("TERM", False)])
def test_a_warned_task_interrupts_its_worker_and_is_requeued_before_its_time_is_up(
    tmp_path, monkeypatch, signum, requeued
):
    """The script in plain bash, with a program in place of Python and of scontrol."""
    monkeypatch.chdir(tmp_path)
    worker = tmp_path / "worker"
    worker.write_text(
        "#!/bin/bash\ntrap 'touch given-back; exit 130' TERM\ntouch started\n"
        "while true; do sleep 0.05; done\n"
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text('#!/bin/bash\necho "$@" > requeued\n')
    for path in (worker, tmp_path / "bin" / "scontrol"):
        path.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(worker))
    script = Slurm().script(request("search")).replace("sleep 60", "true")
    env = os.environ | {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "7",
                        "PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
    shell = subprocess.Popen(["bash", "-c", script], env=env, cwd=tmp_path)
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    shell.send_signal(getattr(signal, f"SIG{signum}"))
    assert shell.wait(300) == 130
    assert (tmp_path / "given-back").exists()
    path = tmp_path / "requeued"
    assert (path.read_text() if path.exists() else "") == "requeue 7_2\n" * requeued


def test_the_states_of_tasks_are_read_from_the_controller_and_from_the_accounting():
    states = task_states(SHOWN)
    assert [(n, states[n].place, states[n].code) for n in sorted(states)] == [
        (1, "n1 (SLURM job 7_1)", None), (2, "n2 (SLURM job 7_2)", 2), (3, "", None),
        (4, "", None),
    ]  # fmt: skip
    assert states[1].since == states[2].since + 1
    states = accounted_states("7_1|COMPLETED|0:0|n1\n7_2|CANCELLED by 0|0:15|n2\n")
    assert [(n, s.place, s.code) for n, s in states.items()] == [
        (1, "n1 (SLURM job 7_1)", 0), (2, "n2 (SLURM job 7_2)", -15),
    ]  # fmt: skip


def test_a_preempted_or_requeued_task_has_not_ended():
    for state in ("PREEMPTED", "NODE_FAIL", "REQUEUED", "PENDING", "COMPLETING"):
        line = f"JobId=8 ArrayJobId=7 ArrayTaskId=1 JobState={state} ExitCode=0:15 BatchHost=n1"
        assert task_states(line)[1].code is None


def test_tasks_run_on_while_the_controller_restarts_and_have_ended_when_it_forgot_them(
    tmp_path, monkeypatch
):
    running = WorkerState(1, "n1 (SLURM job 7_1)", 1.0)
    workers = SlurmWorkers("7", 1, tmp_path, lambda number, line: None, {1: running})
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for message, states in (
        ("Unable to contact slurm controller (connect failure)", [running]),
        ("slurm_load_jobs error: Invalid job id specified", [replace(running, code=1)]),
    ):
        for name in ("scontrol", "sacct"):
            (tmp_path / name).write_text(f"#!/bin/bash\necho '{message}' >&2; exit 1\n")
            (tmp_path / name).chmod(0o755)
        workers._asked = float("-inf")
        assert workers.poll() == states


@pytest.fixture(scope="module")
def cluster():
    with slurm_cluster() as running:
        yield running


@pytest.mark.cluster
class TestSlurm(LauncherContract):
    """On a real SLURM."""

    @pytest.fixture(autouse=True)
    def _on_a_cluster(self, cluster, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("PATH", "SLURM_CONF"):
            monkeypatch.setenv(name, cluster.env[name])
        self.cluster = cluster

    def make(self):
        return Slurm()

    def test_a_task_that_is_requeued_runs_again_and_is_followed(self, tmp_path, monkeypatch):
        worker = tmp_path / "worker"
        worker.write_text(
            "#!/bin/bash\ntrap 'exit 130' TERM\n"
            "[ -e again ] && exit 0\ntouch started\nwhile true; do sleep 0.1; done\n"
        )
        worker.chmod(0o755)
        monkeypatch.setattr("sys.executable", str(worker))
        workers = Slurm().start(request("search", count=1), lambda number, line: None)
        assert isinstance(workers, SlurmWorkers)
        self.follow(workers, lambda states: (tmp_path / "started").exists())
        (tmp_path / "again").touch()
        self.cluster.run("scontrol", "requeue", f"{workers.job}_1")  # as after a preemption
        self.follow(workers, lambda states: "PENDING" in self.shown(workers.job))
        self.start_again(workers)
        states = self.follow(workers, lambda states: states[0].code is not None)
        assert states[0].code == 0
        assert "Restarts=1" in self.shown(workers.job)

    @pytest.mark.parametrize("ending", ["preemption", "time limit", "signal"])
    def test_a_task_that_must_end_gives_back_its_work_and_runs_again(
        self, ending, tmp_path, monkeypatch
    ):
        worker = tmp_path / "worker"
        worker.write_text(
            "#!/bin/bash\ntrap 'touch given-back; exit 130' TERM\n"
            "[ -e given-back ] && exit 0\ntouch started\nwhile true; do sleep 0.1; done\n"
        )
        worker.chmod(0o755)
        monkeypatch.setattr("sys.executable", str(worker))
        cpus = os.cpu_count()
        slurm = (
            Slurm(cpus=cpus, time="1", grace=55) if ending == "time limit" else Slurm(cpus=cpus)
        )
        workers = slurm.start(request("search", count=1), lambda number, line: None)
        self.follow(workers, lambda states: (tmp_path / "started").exists())
        if ending == "preemption":
            self.cluster.run("sbatch", "--partition=urgent", f"--cpus-per-task={cpus}",
                             "--output=/dev/null", "--wrap=sleep 1")  # fmt: skip
        elif ending == "signal":
            self.cluster.run("scancel", "--batch", "--signal=USR1", f"{workers.job}_1")
        self.follow(workers, lambda states: (tmp_path / "given-back").exists())
        self.follow(workers, lambda states: "PENDING" in self.shown(workers.job))
        self.start_again(workers)
        states = self.follow(workers, lambda states: states[0].code is not None)
        assert states[0].code == 0
        assert "Restarts=1" in self.shown(workers.job)

    def start_again(self, workers):
        """Start a requeued task, which SLURM lets wait for two minutes.

        A node refuses the job's credentials of the second in which the first run ended, or before.
        """
        ended = int(time.time())
        self.follow(workers, lambda states: int(time.time()) > ended + 1)
        self.cluster.run("scontrol", "update", f"JobId={workers.job}_1", "StartTime=now")

    def shown(self, job):
        return self.cluster.run("scontrol", "--oneliner", "show", "job", job)
