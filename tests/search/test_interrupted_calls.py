"""An interrupt in a call to a database arrives after it, and leaves no lock behind."""

import shutil
import signal
import sqlite3
from contextlib import closing

import mlflow
import pytest
from mmq_search.storage import Storage
from optuna.study import StudyDirection
from sqlalchemy import event
from sqlalchemy.engine import Engine

from mmq.studies.work_list import WorkList
from mmq.system.database import Database
from mmq.tracking.contact import open_client
from mmq.tracking.model_registry import ensure_registered


def work_list(folder):
    work = WorkList(Database(folder), "study")
    return lambda: work.offer(["a unit"]), folder / "studies.db", "mmq_work"


def optuna_storage(folder):
    storage = Storage(folder)
    create = storage.optuna.create_new_study
    return lambda: create([StudyDirection.MAXIMIZE], "study"), folder / "studies.db", "studies"


def tracking_store(folder):
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    create = open_client().create_experiment
    return lambda: create("one", tags={"a": "tag"}), folder / "mlflow.db", "experiment_tags"


def model_registry(folder):
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client = open_client()
    ensure_registered(client, "first")
    where = "registered_models where name = 'second'"
    return lambda: ensure_registered(client, "second"), folder / "mlflow.db", where


@pytest.fixture
def interrupting():
    """Interrupts the first transaction from now on just before it is committed."""
    left = [signal.SIGINT]

    def before_commit(connection):
        if left:
            signal.raise_signal(left.pop())

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: event.listen(Engine, "commit", before_commit)
    event.remove(Engine, "commit", before_commit)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("opened", [work_list, optuna_storage, tracking_store, model_registry])
def test_an_interrupted_write_is_complete_and_its_lock_is_free(
    tmp_path, empty_store, opened, interrupting
):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    write, file, table = opened(tmp_path)
    interrupting()
    with pytest.raises(KeyboardInterrupt) as caught:  # its traceback refers to connections
        write()
    with closing(sqlite3.connect(file, timeout=0)) as other:
        other.execute("create table free (a int)")
        rows = other.execute(f"select count(*) from {table}").fetchone()
    assert rows == (1,), caught
