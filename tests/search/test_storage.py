"""Several processes in one study: real databases, real processes, made-up scores."""

import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from mmq_search.storage import GRACE, VARIABLE, Storage
from optuna.trial import TrialState
from postgres import PASSWORD, postgres
from sqlalchemy import text
from test_study import SPACE, finish, open_study

from mmq.errors import InputError, TakenOver


@pytest.fixture(scope="module")
def server():
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, monkeypatch):
    """Either database; a process started by the test finds the same."""
    if request.param == "postgresql":
        monkeypatch.setenv(VARIABLE, request.getfixturevalue("server").url)
    return request.param


def start(folder, work, **variables):
    """A process that does `work` in the study."""
    code = (
        "import os, sys, time; sys.path[:0] = sys.argv[1:3]; from test_study import *; "
        f"from pathlib import Path; folder = Path(sys.argv[3]); name = sys.argv[4]; {work}"
    )
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-c", code, str(here), str(here.parent), str(folder), folder.name],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
    )


def killed_elsewhere(folder):
    """A process of another machine that was killed in the middle of a trial; what it asked."""
    process = start(
        folder,
        "import mmq.owner; mmq.owner.host = lambda: 'elsewhere'; study = open_study(folder, name);"
        "print(study.ask().allocation, flush=True); os.kill(os.getpid(), 9)",
    )
    said, _ = process.communicate()
    assert process.returncode == -9
    return said.strip()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://mmq:{PASSWORD}@127.0.0.1:9/x",
        f"postgresql://mmq:{PASSWORD}@127.0.0.1:nine/x",
        f"mysql://mmq:{PASSWORD}@127.0.0.1/x",
        f"mmq:{PASSWORD}",
    ],
)
def test_a_storage_that_cannot_be_used_is_an_input_error_without_the_password(
    tmp_path, monkeypatch, url
):
    monkeypatch.setenv(VARIABLE, url)
    with pytest.raises(InputError) as caught:
        Storage(tmp_path)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_wrong_password_is_an_input_error_that_does_not_show_it(tmp_path, monkeypatch, server):
    monkeypatch.setenv(VARIABLE, server.url.replace(PASSWORD, "wrong-one"))
    with pytest.raises(InputError, match="authentication failed") as caught:
        Storage(tmp_path)
    assert "wrong-one" not in str(caught.value)


def test_processes_that_start_at_once_share_the_work_and_double_nothing(tmp_path, database):
    work = (
        "study = open_study(folder, name); n = 0\n"
        "while (asked := study.ask(9)) is not None:\n"
        "    time.sleep(0.05); study.records.keep(record(asked), 'r'); study.tell(asked); n += 1\n"
        "print(n)"
    )
    shares = [int(p.communicate()[0]) for p in [start(tmp_path, work) for _ in range(3)]]
    study = open_study(tmp_path, tmp_path.name)
    asked = [t.user_attrs["allocation"] for t in study._trials(TrialState.COMPLETE)
             if "duplicate_of" not in t.user_attrs]  # fmt: skip
    assert len(asked) == len(set(asked)) == sum(shares) == 9
    assert {str(a) for a in SPACE.diagonal()} <= set(asked)


def test_a_trial_of_another_machine_is_asked_again_when_its_heart_stops(tmp_path, database):
    allocation = killed_elsewhere(tmp_path)
    study = open_study(tmp_path, tmp_path.name)
    assert len(study._trials(TrialState.RUNNING)) == 1
    assert study.others_at_work()
    with study.storage.optuna.engine.begin() as connection:
        at = datetime.utcnow() - timedelta(seconds=GRACE + 5)
        connection.execute(text("update trial_heartbeats set heartbeat = :at"), {"at": at})
    assert not study.others_at_work()
    assert str(study.ask().allocation) == allocation


def test_a_heart_beats_as_long_as_a_trial_is_worked_on(tmp_path, monkeypatch):
    monkeypatch.setattr("mmq_search.storage.HEARTBEAT", 0.05)
    study = open_study(tmp_path)
    asked, query = study.ask(), text("select heartbeat from trial_heartbeats")

    def beat():
        with study.storage.optuna.engine.connect() as connection:
            return connection.execute(query).scalar()

    first = beat()
    with study.working(asked):
        end = time.monotonic() + 20
        while beat() == first and time.monotonic() < end:
            time.sleep(0.1)
    assert beat() != first


def test_a_trial_that_was_left_in_the_middle_of_asking_is_no_obstacle(tmp_path):
    study = open_study(tmp_path)
    half = study.study.ask()
    assert "vit=16 llm=16" in finish(open_study(tmp_path), 4)
    assert study.study.trials[half.number].state == TrialState.FAIL


def test_who_was_taken_for_dead_keeps_nothing(tmp_path):
    study = open_study(tmp_path)
    asked = study.ask()
    study.check_claim(asked)
    study.study.tell(asked.trial.number, state=TrialState.FAIL)  # as others do with the silent
    with pytest.raises(TakenOver):
        study.check_claim(asked)
    study.give_up(asked, retry=False)
    assert not study.points()


def test_the_lock_of_a_killed_process_is_free(tmp_path, database):
    holder = start(
        tmp_path,
        "study = open_study(folder, name); lock = study.locked(); lock.__enter__(); "
        "print('held', flush=True); time.sleep(60)",
    )
    assert holder.stdout.readline() == "held\n"
    study = open_study_later = start(tmp_path, "open_study(folder, name).ask(); print('asked')")
    time.sleep(1)
    holder.kill()
    holder.communicate()
    assert open_study_later.communicate(timeout=60)[0] == "asked\n"
    assert study.returncode == 0


def test_limits_count_what_others_are_evaluating(tmp_path):
    first, second = open_study(tmp_path), open_study(tmp_path)
    running = [first.ask(6) for _ in range(6)]
    assert None not in running
    assert second.ask(6) is None
    first.give_up(running[-1], retry=True)
    assert second.ask(6).allocation == running[-1].allocation


def test_a_database_that_restarts_in_the_middle_costs_nothing(tmp_path, monkeypatch, server):
    monkeypatch.setenv(VARIABLE, server.url)
    study = open_study(tmp_path, tmp_path.name)
    done = finish(study, 2)
    server.stop()
    server.start()
    assert len(set(done + finish(study, 2))) == 4
