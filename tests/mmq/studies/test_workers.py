"""`--workers N` as a user meets it: real processes, real signals."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from mlflow import MlflowClient
from mmq_plugins.launchers.local import Local, gpu_sets

from mmq.cli import main
from mmq.contracts import LaunchRequest, Workers, WorkerState
from mmq.errors import InputError
from mmq.studies.workers import commands, follow, placement
from mmq.system.home import home
from mmq.system.worker import NUMBER

SEARCH = ["search", "--limit", "20", "--num-beams", "1", "--bits", "3,4,16", "--workers", "2"]


def start(fork_server, folder, *options):
    for name in ("data", "store"):
        (home() / name).mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).symlink_to(home() / name)
    env = os.environ | {"MMQ_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    env |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    return fork_server.start(*SEARCH, *options, cwd=folder, env=env)


def trials(folder):
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("mmq")
    if experiment is None:
        return []
    return client.search_runs([experiment.experiment_id], "tags.`mmq.kind` = 'trial'")


def wait_for(what, seconds=600):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := what():
            return result
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def running(folder, count=1):
    """The running trials, if there are at least `count`; None otherwise."""
    result = [t for t in trials(folder) if t.info.status == "RUNNING"]
    return result if len(result) >= count else None


@pytest.mark.cluster
def test_workers_end_together_and_a_killed_one_loses_nothing(tmp_path, fork_server):
    command = start(fork_server, tmp_path, "--n-trials", "25")
    wait_for(lambda: running(tmp_path))
    workers = psutil.Process(command.pid).children()
    command.send_signal(signal.SIGINT)
    output, _ = command.communicate(timeout=600)
    assert command.returncode == 130, output
    assert "Traceback" not in output
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert "KILLED" in [t.info.status for t in trials(tmp_path)]
    assert not running(tmp_path)
    finished = sum(t.info.status == "FINISHED" for t in trials(tmp_path))

    command = start(fork_server, tmp_path, "--n-trials", str(finished + 6))
    victim = wait_for(lambda: running(tmp_path))[0]
    os.kill(int(victim.data.tags["mmq.owner"].split(":")[1]), signal.SIGKILL)
    output, _ = command.communicate(timeout=600)
    assert command.returncode == 0, output
    assert "was ended by signal 9; 1 other continues." in output
    whole = [t for t in trials(tmp_path) if t.info.status == "FINISHED"]
    assert len({t.data.tags["mmq.allocation"] for t in whole}) == len(whole) == finished + 6
    assert not running(tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    parent = client.get_run(whole[0].data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED"


def test_a_worker_ends_when_what_launched_it_is_killed():
    work = "import time; from mmq.system.worker import *; end_with_launcher(); time.sleep(900)"
    env = os.environ | {"MMQ_WORKER_LIFELINE": "stdin"}
    worker = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, env=env)
    worker.stdin.close()  # as the kernel does
    assert worker.wait(600) == -signal.SIGTERM


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes workers run a shell script instead of Python; its $3 is the command's first word."""

    def instead(script):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return instead


def run(done, *names):
    request = LaunchRequest("s", [[name] for name in names])
    return follow(Local(), request, done, 5, lambda: False)


class HalfQueued(Workers):
    """Two workers on a cluster that has room for one."""

    stopped = False

    def poll(self):
        return [WorkerState(1, "here", 1.0, 130 if self.stopped else None), WorkerState(2)]

    def stop(self):
        self.stopped = True


def test_workers_that_are_still_queued_when_no_work_is_left_are_stopped(monkeypatch, capfd):
    workers, left = HalfQueued(), [2, 1, 0]
    monkeypatch.setattr(Local, "start", lambda self, request, output: workers)
    monkeypatch.setattr("mmq.studies.workers.POLL", 0)
    codes = follow(
        Local(), LaunchRequest("s", [["grid"]] * 2), lambda: 2 - left.pop(0), 2, lambda: not left
    )
    assert codes == [0, 0]
    assert workers.stopped
    assert capfd.readouterr().err == (
        "1 of 2 trials are done\n2 of 2 trials are done\n"
        "No work is left; stopping the workers that are still queued (1).\n"
    )


def test_output_is_relayed_and_the_end_of_workers_reported(monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_RUN_ID", "of-the-command")
    done = iter([0, 1, 1, 1])  # the other one has evaluated something
    codes = run(lambda: next(done, 1), "--version", "no-such-command")
    output = capfd.readouterr().err
    assert codes == [0, 2]
    assert "worker 1: mmq, version" in output
    assert "worker 2: Error: Unknown command" in output
    assert "worker 2 failed with exit code 2" in output
    assert NUMBER not in os.environ


def test_bad_input_that_workers_find_ends_the_command_with_one_message(program, capfd):
    program('[ "$3" = slow ] && exec sleep 900; echo "Error: data: no such folder"; exit 2')
    began = time.monotonic()
    with pytest.raises(InputError, match="^data: no such folder$"):
        run(lambda: 0, "quick", "quick", "slow")
    assert time.monotonic() - began < 600  # the slow one was ended
    assert "no such folder" not in capfd.readouterr().err


def test_workers_that_all_fail_end_the_command_with_one_message(program, capfd):
    program('echo "MemoryError"; exit 1')
    with pytest.raises(InputError, match="all of them ended early: failed with exit code 1 "):
        run(lambda: 0, "a", "b")
    program("kill -9 $$")
    with pytest.raises(InputError, match=r"was ended by signal 9 \(worker 1, 2\)"):
        run(lambda: 0, "a", "b")


def test_a_worker_that_cannot_be_started_is_an_input_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    with pytest.raises(InputError, match="worker 1 cannot be started"):
        run(lambda: 0, "a")


def placed(plugin_options=(), **options):
    from mmq_search.command import SearchOptions

    options = SearchOptions(**options)
    return options, placement(options, dict(plugin_options))


def test_workers_get_the_options_of_the_command_but_those_of_the_launcher():
    given = {"partition": "gpu", "launcher.cpus": "4", "group-size": "64"}
    options, (place, rest) = placed(given, launcher="slurm", workers=3, n_trials=7)
    assert (place.launcher.partition, place.launcher.cpus) == ("gpu", 4)
    assert rest == {"group-size": "64"}
    line, *others = commands("search", options, rest, place, study="s")
    assert others == [line] * 2
    assert line[0] == "search"
    values = dict(zip(line[1:-1:2], line[2:-1:2], strict=True))
    assert values["--n-trials"] == "7"
    assert values["--study"] == "s"
    assert set(values) == {"--n-trials", "--study"}  # one local worker, all else by default
    assert line[-1] == "--group-size=64"


def test_workers_with_their_own_gpus_compute_as_on_a_gpu_wherever_they_are_launched():
    options, (place, _) = placed(launcher="slurm", workers=2, gpus_per_worker=2)
    assert place.device("auto", "auto") == ("cuda", "float16")
    assert place.device("auto", "bfloat16") == ("cuda", "bfloat16")
    assert place.device("cpu", "auto") == ("cpu", "auto")
    line = commands("search", options, {}, place)[0]
    assert line[line.index("--device") + 1] == "cuda"


def test_workers_get_disjoint_sets_of_gpus():
    four = {"CUDA_VISIBLE_DEVICES": "0,2,5,7"}
    assert gpu_sets(4, 1, four) == [["0"], ["2"], ["5"], ["7"]]
    assert gpu_sets(2, 2, four) == [["0", "2"], ["5", "7"]]  # a model spread over two GPUs
    assert gpu_sets(5, 0, four) == [["0"], ["2"], ["5"], ["7"], ["0"]]
    assert gpu_sets(2, 0, {"CUDA_VISIBLE_DEVICES": "3"}) == [[], []]
    with pytest.raises(InputError, match="need 6 GPUs; this machine has 4. Choose at most 2 --wo"):
        gpu_sets(3, 2, four)
    with pytest.raises(
        InputError, match="need 2 GPUs; this machine has none. Leave the option out"
    ):
        gpu_sets(2, 1, {"CUDA_VISIBLE_DEVICES": ""})


def test_each_worker_sees_its_gpus_alone(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    text = Local().preview(LaunchRequest("s", [["grid"], ["grid"]], 1))
    assert text == "CUDA_VISIBLE_DEVICES=GPU-a mmq grid\nCUDA_VISIBLE_DEVICES=GPU-b mmq grid"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--workers", "0"], "workers: 0 is not at least 1"),
        (["--gpus-per-worker", "-1"], "gpus-per-worker: -1 is negative"),
        (["--launcher", "slrum"], "Unknown launcher 'slrum'. Did you mean 'slurm'?"),
        (["--launcher", "slurm", "--grace", "1"], "grace: 1 is not at least 10 seconds"),
        (["--launcher", "ray", "--cpus", "many"], "cpus: 'many' is not a whole number"),
    ],
)
def test_launchers_are_checked_before_anything_else(given, text, capsys):
    with pytest.raises(SystemExit):
        main(["grid", "--data", "/no/such/data", *given])
    assert text in capsys.readouterr().err


def test_workers_of_several_machines_need_a_database_and_a_server(monkeypatch):
    _, (place, _) = placed(launcher="local", workers=2)
    monkeypatch.setattr(Local, "spans_machines", lambda self: True)
    with pytest.raises(InputError, match="the study is in SQLite on this one. Set MMQ_STORAGE"):
        place.request("s", [["grid"]] * 2)
    monkeypatch.setenv("MMQ_STORAGE", "postgresql://mmq@host/db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(InputError, match="the MLflow store is on this one"):
        place.request("s", [["grid"]] * 2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert place.request("s", [["grid"]] * 2).commands == [["grid"]] * 2
    monkeypatch.setenv("MMQ_STORE", "s4://bucket/mmq")
    with pytest.raises(InputError, match="MMQ_STORE: s4:// cannot be used"):
        place.request("s", [["grid"]] * 2)
