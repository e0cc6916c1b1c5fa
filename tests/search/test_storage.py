"""Several processes in one study: real databases, real processes, made-up scores."""

import multiprocessing
import os
import time
from datetime import datetime, timedelta

import pytest
from mmq_search.storage import GRACE, VARIABLE, Storage
from optuna.trial import TrialState
from postgres import PASSWORD, postgres
from sqlalchemy import text
from test_study import SPACE, finish, open_study, record

import mmq.owner
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


def process(work, *arguments):
    """Another process that does this; forked, so that nothing is imported again."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    return child


def killed_elsewhere(folder):
    """A process of another machine is killed in the middle of a trial; what it asked."""
    told, said = multiprocessing.Pipe(duplex=False)

    def work():
        mmq.owner.host = lambda: "elsewhere"
        said.send(str(open_study(folder, folder.name).ask().allocation))
        os.kill(os.getpid(), 9)

    child = process(work)
    child.join()
    assert child.exitcode == -9
    return told.recv()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://mmq:{PASSWORD}@127.0.0.1:9/x",
        f"postgresql://mmq:{PASSWORD}@127.0.0.1:nine/x",
        f"mysql://mmq:{PASSWORD}@127.0.0.1/x",
        f"mmq:{PASSWORD}",
        f"postgresql://mmq:with@{PASSWORD}@127.0.0.1/x",
        f"postgresql://mmq@127.0.0.1:9/x?password={PASSWORD}",
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
    def work():
        study = open_study(tmp_path, tmp_path.name)
        while (asked := study.ask(9)) is not None:
            time.sleep(0.05)
            study.records.keep(record(asked), "r")
            study.tell(asked)

    for child in [process(work) for _ in range(3)]:
        child.join()
        assert child.exitcode == 0
    trials = open_study(tmp_path, tmp_path.name).trials(TrialState.COMPLETE)
    asked = [t for t in trials if "duplicate_of" not in t.user_attrs]
    allocations = {t.user_attrs["allocation"] for t in asked}
    assert len(asked) == len(allocations) == 9
    assert {str(a) for a in SPACE.diagonal()} <= allocations
    assert len({t.user_attrs["owner"] for t in asked}) > 1


def test_a_trial_of_another_machine_is_asked_again_when_its_heart_stops(tmp_path, database):
    allocation = killed_elsewhere(tmp_path)
    study = open_study(tmp_path, tmp_path.name)
    assert len(study.trials(TrialState.RUNNING)) == 1
    assert study.others_at_work()
    with study.storage.optuna.engine.begin() as connection:
        at = datetime.utcnow() - timedelta(seconds=GRACE + 5)
        connection.execute(text("update trial_heartbeats set heartbeat = :at"), {"at": at})
    assert not study.others_at_work()
    assert allocation in finish(study, 4)


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
    held = multiprocessing.Event()

    def hold():
        with open_study(tmp_path, tmp_path.name).locked():
            held.set()
            time.sleep(60)

    def ask():
        open_study(tmp_path, tmp_path.name).ask()

    holder = process(hold)
    assert held.wait(30)
    other = process(ask)
    other.join(1.5)
    assert other.is_alive()
    holder.kill()
    other.join(30)
    assert other.exitcode == 0


def test_limits_count_what_others_are_evaluating(tmp_path):
    first, second = open_study(tmp_path), open_study(tmp_path)
    running = [first.ask(6) for _ in range(6)]
    assert None not in running
    assert second.ask(6) is None
    first.give_up(running[-1], retry=True)
    assert second.ask(6).allocation == running[-1].allocation


def test_a_trial_that_ends_while_it_is_counted_counts(tmp_path, monkeypatch):
    first, second = open_study(tmp_path), open_study(tmp_path)
    finish(first, 3)
    running, read, reads = first.ask(), second.trials, []

    def end_in_between(*states):
        found = read(*states)
        reads.append(states)
        if len(reads) == 2:  # the first one looks for the dead, the next two count
            first.records.keep(record(running), "r")
            first.tell(running)
        return found

    monkeypatch.setattr(second, "trials", end_in_between)
    assert second.ask(4) is None
    assert len(second.evaluated()) == 4


def test_a_database_that_restarts_in_the_middle_costs_nothing(tmp_path, monkeypatch, server):
    monkeypatch.setenv(VARIABLE, server.url)
    study = open_study(tmp_path, tmp_path.name)
    done = finish(study, 2)
    server.stop()
    server.start()
    assert len(set(done + finish(study, 2))) == 4
