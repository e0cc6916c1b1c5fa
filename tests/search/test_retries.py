"""A database that is unavailable for a while: calls wait, and nothing is lost or done twice."""

import sqlite3
import threading
from contextlib import contextmanager

import psycopg
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from postgres import PASSWORD
from sqlalchemy.exc import OperationalError
from test_study import finish, open_study, record

from mmq.system.database import VARIABLE
from mmq.system.retries import StorageError, is_transient, reason


@contextmanager
def unavailable(server):
    """Stop the database, and start it again while the block waits for it."""
    server.stop()
    back = threading.Timer(0.5, server.start)
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


def test_every_read_and_write_waits_while_the_database_is_unavailable(study, server):
    with unavailable(server):
        pending = study.ask()
    study.records.put(record(pending).in_run("r"))
    with unavailable(server), study.working(pending):
        study.tell(pending)
    with unavailable(server):
        assert len(study.finished()) == 3  # as the overseer and the live view read
    with unavailable(server):
        assert study.score_name == "vqa/accuracy"
    with unavailable(server):
        assert not study.others_at_work()
    with unavailable(server):
        study.give_up(study.ask(), retry=True)
    assert not study.trials(TrialState.RUNNING)
    assert len(study.trials(TrialState.WAITING)) == 4


def interrupted(server, monkeypatch, name, before):
    """Restart the database once, just before or after this method of the tables was called."""
    from mmq_search.retrying_storage import RetryingStorage

    real, calls = getattr(RetryingStorage, name), []

    def method(self, *args, **kwargs):
        calls.append(name)
        if len(calls) > 1:
            return real(self, *args, **kwargs)
        if before:
            server.stop()
            server.start()
        result = real(self, *args, **kwargs)
        if not before:  # it is written, and the answer is lost
            server.stop()
            server.start()
            raise OperationalError(
                "commit", {}, psycopg.OperationalError("the connection is lost")
            )
        return result

    monkeypatch.setattr(RetryingStorage, name, method)
    return calls


@pytest.mark.parametrize(
    ("name", "before"),
    [("_create_new_trial", False), ("write_start", True), ("write_start", False)],
)
def test_an_interrupted_ask_leaves_no_running_trial_behind(
    study, server, monkeypatch, name, before
):
    finish(study, 5)  # the rules of thumb: what is next comes from the sampler
    calls = interrupted(server, monkeypatch, name, before)
    pending = study.ask()
    assert len(calls) > 1
    assert [t.number for t in study.trials(TrialState.RUNNING)] == [pending.trial.number]
    study.give_up(pending, retry=True)
    rest = finish(study, 3)
    assert len(set(rest)) == 3
    assert str(pending.allocation) in rest


def test_a_result_whose_reply_was_lost_is_written_once(study, server, monkeypatch):
    pending = study.ask()
    study.records.put(record(pending).in_run("r"))
    real, commits = psycopg.Connection.commit, []

    def lost(connection):
        real(connection)
        commits.append(connection)
        if len(commits) == 1:
            connection.close()
            raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(psycopg.Connection, "commit", lost)
    study.tell(pending)
    assert len(commits) > 1
    size, score = record(pending).size.stored_bpw, record(pending).score.value
    assert study.evaluated()[str(pending.allocation)].values == [size, score]


def test_work_is_repeated_if_its_lock_was_lost_with_the_connection(study, server):
    attempts = []

    def work():
        attempts.append(1)
        if len(attempts) == 1:
            server.stop()
            server.start()
            study.study.set_user_attr("x", 1)  # on a new connection, without the lock

    study.exclusively(work)
    assert len(attempts) == 2


def test_a_database_that_stays_unavailable_is_a_storage_error(study, server, monkeypatch):
    study.storage.retries.max_outage = 0.5
    server.stop()
    try:
        with pytest.raises(StorageError, match="it is unavailable: .*the same command") as caught:
            study.finished()
    finally:
        server.start()
    assert PASSWORD not in str(caught.value)
    assert study.storage.retries.max_outage <= 5  # what ends with it does not wait as long again
    assert len(study.finished()) == 2


@pytest.mark.parametrize(
    ("driver", "message", "waits"),
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
def test_only_errors_that_waiting_can_fix_are_retried(driver, message, waits):
    error = StorageInternalError()
    error.__cause__ = OperationalError("select", {}, driver(message))
    assert is_transient(error) == waits
    assert reason(error) == message


def test_a_restart_of_the_database_loses_no_trial(tmp_path, monkeypatch, server):
    monkeypatch.setenv(VARIABLE, server.url)
    study = open_study(tmp_path, tmp_path.name)
    done = finish(study, 2)
    server.stop()
    server.start()
    assert len(set(done + finish(study, 2))) == 4
