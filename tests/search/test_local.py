"""`mmq search --workers N` as a user meets it: real processes, real signals."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from mlflow import MlflowClient
from mmq_search.deadline import Deadline, in_words
from mmq_search.launchers.local import VARIABLE, arguments, oversee

from mmq.errors import InputError
from mmq.system.home import home

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


def wait_for(what, seconds=180):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def running(folder, count=1):
    """Running trials, where there are so many."""
    found = [t for t in trials(folder) if t.info.status == "RUNNING"]
    return found if len(found) >= count else None


def test_workers_end_together_and_a_killed_one_loses_nothing(tmp_path, fork_server):
    command = start(fork_server, tmp_path, "--n-trials", "25")
    wait_for(lambda: running(tmp_path))
    workers = psutil.Process(command.pid).children()
    command.send_signal(signal.SIGINT)
    said, _ = command.communicate(timeout=120)
    assert command.returncode == 130, said
    assert "Traceback" not in said
    assert not psutil.wait_procs(workers, timeout=1)[1]
    assert "KILLED" in [t.info.status for t in trials(tmp_path)]
    assert not running(tmp_path)
    finished = sum(t.info.status == "FINISHED" for t in trials(tmp_path))

    command = start(fork_server, tmp_path, "--n-trials", str(finished + 6))
    victim = wait_for(lambda: running(tmp_path))[0]
    os.kill(int(victim.data.tags["mmq.owner"].split(":")[1]), signal.SIGKILL)
    said, _ = command.communicate(timeout=300)
    assert command.returncode == 0, said
    assert "was ended by signal 9; 1 others continue." in said
    whole = [t for t in trials(tmp_path) if t.info.status == "FINISHED"]
    assert len({t.data.tags["mmq.allocation"] for t in whole}) == len(whole) == finished + 6
    assert not running(tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    parent = client.get_run(whole[0].data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED"


def test_a_worker_ends_when_its_overseer_is_killed():
    work = "from mmq_search.launchers.local import *; end_with_overseer(); time.sleep(60)"
    worker = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE)
    time.sleep(0.1)
    worker.stdin.close()  # as the kernel does
    assert worker.wait(30) == -signal.SIGTERM


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes workers run a shell script instead of Python; its $3 is the command's first word."""

    def instead(script):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return instead


def test_an_overseer_relays_output_and_reports_how_workers_ended(monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_RUN_ID", "of-the-command")
    done = iter([0, 1, 1, 1])  # the other one has evaluated something
    codes = oversee([["plugins"], ["no-such-command"]], lambda: next(done, 1), 1)
    said = capfd.readouterr().err
    assert codes == [0, 2]
    assert "worker 1: quantizer" in said
    assert "worker 2: Error: Unknown command" in said
    assert "worker 2 failed with exit code 2" in said
    assert VARIABLE not in os.environ


def test_bad_input_that_workers_find_ends_the_search_with_one_message(program, capfd):
    program('[ "$3" = slow ] && exec sleep 60; echo "Error: data: no such folder"; exit 2')
    began = time.monotonic()
    with pytest.raises(InputError, match="^data: no such folder$"):
        oversee([["quick"], ["quick"], ["slow"]], lambda: 0, 5)
    assert time.monotonic() - began < 30  # the slow one was ended
    assert "no such folder" not in capfd.readouterr().err


def test_workers_that_all_fail_end_the_search_with_one_message(program, capfd):
    program('echo "MemoryError"; exit 1')
    with pytest.raises(InputError, match="all of them ended early: failed with exit code 1 "):
        oversee([["a"], ["b"]], lambda: 0, 5)
    program("kill -9 $$")
    with pytest.raises(InputError, match=r"was ended by signal 9 \(worker 1, 2\)"):
        oversee([["a"], ["b"]], lambda: 0, 5)


def test_a_worker_that_cannot_be_started_is_an_input_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    with pytest.raises(InputError, match="worker 1 cannot be started"):
        oversee([["a"]], lambda: 0, 5)


def test_workers_get_the_options_that_the_command_has():
    assert arguments({"n_trials": 3, "study": ""}, {"group-size": "64"}) == [
        "search", "--n-trials", "3", "--study", "", "--group-size=64",
    ]  # fmt: skip


def test_a_timeout_is_written_in_seconds_minutes_or_hours():
    assert Deadline.parse("").left is None
    assert not Deadline.parse("").passed
    assert [Deadline.parse(t).seconds for t in ("90", "90m", "1.5h")] == [90, 5400, 5400]
    assert Deadline(10, start=time.monotonic() - 11).passed
    assert in_words(3600 * 8) == "8 h 0 min"
    for text in ("0", "soon", "-5", "5 weeks"):
        with pytest.raises(InputError, match="timeout"):
            Deadline.parse(text)
