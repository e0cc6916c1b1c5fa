"""A write to a database that SIGINT interrupts just before its commit, in a process of its own.

python interrupted_call.py CASE   prints how many rows were written, and that the lock is free
"""

import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import mlflow
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
    return lambda: work.offer(["a unit"]), "studies.db", "mmq_work"


def optuna_storage(folder):
    create = Storage(folder).optuna.create_new_study
    return lambda: create([StudyDirection.MAXIMIZE], "study"), "studies.db", "studies"


def tracking_store(folder):
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    create = open_client().create_experiment
    return lambda: create("one", tags={"a": "tag"}), "mlflow.db", "experiment_tags"


def model_registry(folder):
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client = open_client()
    ensure_registered(client, "first")
    rows = "registered_models where name = 'second'"
    return lambda: ensure_registered(client, "second"), "mlflow.db", rows


CASES = (work_list, optuna_storage, tracking_store, model_registry)


def main(name):
    write, file, rows = globals()[name](Path.cwd())
    left = [signal.SIGINT]

    @event.listens_for(Engine, "commit")
    def interrupt(connection):
        if left:
            signal.raise_signal(left.pop())

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        write()
        print("not interrupted")
    except KeyboardInterrupt as error:  # its traceback refers to connections
        with closing(sqlite3.connect(file, timeout=0)) as other:
            other.execute("create table free (a int)")
            count = other.execute(f"select count(*) from {rows}").fetchone()[0]
            print(count, "row, the lock is free, interrupted by", type(error).__name__)


if __name__ == "__main__":
    main(sys.argv[1])
