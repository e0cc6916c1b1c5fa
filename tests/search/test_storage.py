"""Several processes in one study: real databases, real processes, made-up scores."""

import multiprocessing
import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta

import optuna
import psycopg
import pytest
from mmq_search.patience import StorageError, passes, reason
from mmq_search.stale_trials import LISTEN
from mmq_search.storage import GRACE, VARIABLE, Storage
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from postgres import PASSWORD, postgres
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from test_study import SPACE, finish, open_study, record

import mmq.system.process
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
        mmq.system.process.host = lambda: "elsewhere"
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
            study.records.put(record(asked).in_run("r"))
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


def test_a_trial_of_another_machine_is_asked_again_when_its_heart_stops(
    tmp_path, database, monkeypatch
):
    allocation = killed_elsewhere(tmp_path)
    study = open_study(tmp_path, tmp_path.name)
    assert len(study.trials(TrialState.RUNNING)) == 1
    assert study.others_at_work()
    silence(study)
    assert study.others_at_work()  # the database's clock may have been set: it is listened to
    clock = time.monotonic() + LISTEN
    monkeypatch.setattr("mmq_search.stale_trials.time.monotonic", lambda: clock)
    assert not study.others_at_work()
    assert allocation in finish(study, 4)


def silence(study):
    """As if no heart had beaten for a while, or the database's clock had been set ahead."""
    with study.storage.optuna.engine.begin() as connection:
        at = datetime.utcnow() - timedelta(seconds=GRACE + 5)
        connection.execute(text("update trial_heartbeats set heartbeat = :at"), {"at": at})


def test_a_heart_that_is_heard_again_keeps_its_trial(tmp_path, monkeypatch):
    killed_elsewhere(tmp_path)  # who beats for it is this process
    study, clock = open_study(tmp_path, tmp_path.name), [1000.0]
    monkeypatch.setattr("mmq_search.stale_trials.time.monotonic", lambda: clock[0])
    (trial,) = study.trials(TrialState.RUNNING)
    for _ in range(3):
        silence(study)
        assert study.others_at_work()
        study.storage.optuna.record_heartbeat(trial._trial_id)
        clock[0] += LISTEN
        assert study.others_at_work()
    silence(study)
    assert study.others_at_work()
    clock[0] += LISTEN
    study.storage.door.outages += 1  # nobody could be heard meanwhile
    assert study.others_at_work()
    clock[0] += LISTEN
    assert not study.others_at_work()


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
        open_study(tmp_path, tmp_path.name).exclusively(lambda: (held.set(), time.sleep(60)))

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
            first.records.put(record(running).in_run("r"))
            first.tell(running)
        return found

    monkeypatch.setattr(second, "trials", end_in_between)
    assert second.ask(4) is None
    assert len(second.evaluated()) == 4


LOST = OperationalError("commit", {}, psycopg.OperationalError("the connection is lost"))


@contextmanager
def away(server, seconds=0.5):
    """The database is away in this block, or for so long where the block waits for it."""
    server.stop()
    back = threading.Timer(seconds, server.start)
    back.start()
    try:
        yield
    finally:
        back.join()


@pytest.fixture
def study(tmp_path, monkeypatch, server):
    """A study with two finished trials in PostgreSQL."""
    monkeypatch.setenv(VARIABLE, server.url)
    study = open_study(tmp_path, tmp_path.name)
    finish(study, 2)
    return study


def test_every_read_and_write_waits_for_a_database_that_is_away(study, server):
    with away(server):
        asked = study.ask()
    study.records.put(record(asked).in_run("r"))
    with away(server), study.working(asked):
        study.tell(asked)
    with away(server):
        assert len(study.settled()) == 3  # as the overseer and the live view read
    with away(server):
        assert study.score_name == "vqa/accuracy"
    with away(server):
        assert not study.others_at_work()
    with away(server):
        study.give_up(study.ask(), retry=True)
    assert not study.trials(TrialState.RUNNING)
    assert len(study.trials(TrialState.WAITING)) == 1


def interrupted(server, monkeypatch, name, before):
    """Restart the database once, just before or after this method of the tables was called."""
    from mmq_search.tables import Tables

    real, calls = getattr(Tables, name), []

    def method(self, *args, **kwargs):
        calls.append(name)
        if len(calls) > 1:
            return real(self, *args, **kwargs)
        if before:
            server.stop()
            server.start()
        found = real(self, *args, **kwargs)
        if not before:  # it is written, and the answer is lost
            server.stop()
            server.start()
            raise OperationalError(
                "commit", {}, psycopg.OperationalError("the connection is lost")
            )
        return found

    monkeypatch.setattr(Tables, name, method)
    return calls


@pytest.mark.parametrize(
    ("name", "before"),
    [("_create_new_trial", False), ("set_trial_user_attr", True), ("_set_trial_param", False)],
)
def test_asking_that_was_broken_off_leaves_no_trial_behind(
    study, server, monkeypatch, name, before
):
    finish(study, 2)  # what is next comes from the sampler
    calls = interrupted(server, monkeypatch, name, before)
    asked = study.ask()
    assert len(calls) > 1
    assert [t.number for t in study.trials(TrialState.RUNNING)] == [asked.trial.number]
    study.give_up(asked, retry=True)
    rest = finish(study, 3)
    assert len(set(rest)) == 3
    assert str(asked.allocation) in rest


def test_an_end_whose_answer_was_lost_is_written_once(study, server, monkeypatch):
    asked = study.ask()
    study.records.put(record(asked).in_run("r"))
    real, calls = RDBStorage.set_trial_state_values, []

    def lost(self, *args, **kwargs):
        found = real(self, *args, **kwargs)
        calls.append(args)
        if len(calls) == 1:
            raise OperationalError(
                "commit", {}, psycopg.OperationalError("the connection is lost")
            )
        return found

    monkeypatch.setattr(RDBStorage, "set_trial_state_values", lost)
    study.tell(asked)
    assert len(calls) == 1
    assert str(asked.allocation) in study.evaluated()


def test_a_lock_that_was_lost_with_its_connection_is_taken_again(study, server):
    attempts = []

    def work():
        attempts.append(1)
        if len(attempts) == 1:
            server.stop()
            server.start()
            study.study.set_user_attr("x", 1)  # on a new connection, without the lock

    study.exclusively(work)
    assert len(attempts) == 2


def test_a_database_that_stays_away_ends_with_a_sentence(study, server, monkeypatch):
    study.storage.door.patience = 0.5
    with away(server, 1.5):
        with pytest.raises(StorageError, match="it is away: .*the same command resumes") as caught:
            study.settled()
        assert PASSWORD not in str(caught.value)
    assert study.storage.door.patience <= 5  # what ends with it does not wait as long again
    assert len(study.settled()) == 2


@pytest.mark.parametrize(
    ("driver", "said", "waits"),
    [
        (sqlite3.OperationalError, "database is locked", True),
        (sqlite3.OperationalError, "database or disk is full", False),
        (sqlite3.OperationalError, "attempt to write a readonly database", False),
        (sqlite3.OperationalError, "unable to open database file", False),
        (sqlite3.OperationalError, "disk I/O error", False),
        (sqlite3.DatabaseError, "database disk image is malformed", False),
        (psycopg.OperationalError, "connection failed: Connection refused", True),
        (psycopg.OperationalError, "server closed the connection unexpectedly", True),
        (psycopg.OperationalError, "FATAL: password authentication failed for user", False),
        (psycopg.OperationalError, 'FATAL: database "x" does not exist', False),
        (psycopg.errors.AdminShutdown, "terminating connection", True),
        (psycopg.errors.CannotConnectNow, "the database system is starting up", True),
        (psycopg.errors.DeadlockDetected, "deadlock detected", True),
        (psycopg.errors.LockNotAvailable, "canceling statement due to lock timeout", True),
        (psycopg.errors.TooManyConnections, "too many clients already", True),
        (psycopg.errors.DiskFull, "No space left on device", False),
        (psycopg.errors.InsufficientPrivilege, "permission denied for table trials", False),
        (psycopg.errors.ReadOnlySqlTransaction, "cannot execute INSERT", False),
    ],
)
def test_what_goes_away_by_waiting_is_waited_for_and_nothing_else(driver, said, waits):
    error = StorageInternalError()
    error.__cause__ = OperationalError("select", {}, driver(said))
    assert passes(error) == waits
    assert reason(error) == said


def test_a_file_that_is_removed_in_the_middle_is_reported(tmp_path):
    study = open_study(tmp_path)
    finish(study, 2)
    (tmp_path / "studies.db").unlink()
    with pytest.raises(StorageError, match="was removed or replaced while it was in use"):
        study.ask()
    assert len(list((tmp_path / "studies" / "s").glob("*.json"))) == 2


def test_a_study_that_is_deleted_in_the_middle_is_reported(tmp_path):
    study = open_study(tmp_path)
    asked = study.ask()
    study.records.put(record(asked).in_run("r"))
    optuna.delete_study(study_name="s", storage=open_study(tmp_path, "t").storage.optuna)
    with pytest.raises(StorageError, match="somebody deleted it"):
        study.tell(asked)
    with pytest.raises(StorageError):
        study.ask()


def test_a_database_that_restarts_in_the_middle_costs_nothing(tmp_path, monkeypatch, server):
    monkeypatch.setenv(VARIABLE, server.url)
    study = open_study(tmp_path, tmp_path.name)
    done = finish(study, 2)
    server.stop()
    server.start()
    assert len(set(done + finish(study, 2))) == 4
