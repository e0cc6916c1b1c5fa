"""A SQLite store for MLflow, made in one step.

MLflow makes the tables of a new store one by one, for about a second. A second process that
opens it meanwhile makes them too, and either or both fail, or leave it half made.
"""

import os
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mmq.errors import InputError
from mmq.tracking.moved import follow_move

QUIET = 2.0  # seconds without a change, after which nobody is at work on a store
WAIT = 60.0


def ensure_database() -> None:
    """Make the SQLite store in use, if it is one and not there; wait for who makes it now.

    Where it was moved here, its paths are brought up to date.
    """
    if not (path := store_file()):
        return
    _check(path)
    if path.exists():
        _wait(path)
        follow_move(path)
    else:
        _make(path)


def _check(path: Path) -> None:
    """InputError where no store can be at this path: MLflow would try for two minutes."""
    folder, problem = path.absolute().parent, ""
    if not folder.is_dir():
        problem = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK):  # SQLite writes a journal beside its file
        problem = f"the folder {folder} is read-only"
    elif path.exists() and not path.is_file():
        problem = "it is not a file"
    elif path.exists() and not os.access(path, os.R_OK | os.W_OK):
        problem = "the file is not readable and writable"
    elif path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\x00":
                problem = "the file is not a SQLite database"
    if problem:
        raise InputError(
            f"MLflow store {mlflow.get_tracking_uri()}: {problem}. Set another one with "
            f"MLFLOW_TRACKING_URI, such as sqlite:////ABSOLUTE/PATH/mlflow.db."
        )


def store_file() -> Path | None:
    """The SQLite file of the store in use; None for another store."""
    with suppress(ArgumentError):
        url = make_url(str(mlflow.get_tracking_uri()))
        if url.drivername == "sqlite" and url.database and url.database != ":memory:":
            return Path(url.database)
    return None


def _make(path: Path) -> None:
    """Beside its place, then put there whole, unless another process was first."""
    with tempfile.TemporaryDirectory(prefix=".new-store-", dir=path.parent) as folder:
        made = Path(folder) / path.name
        client = MlflowClient(f"sqlite:///{made.resolve()}")
        client.search_experiments(max_results=1)
        with suppress(OSError):  # it is there; or no hard links here, and MLflow makes it
            os.link(made, path)


def _wait(path: Path) -> None:
    end = time.monotonic() + WAIT
    while time.monotonic() < end and time.time() - path.stat().st_mtime < QUIET:
        if _is_complete(path):
            return
        time.sleep(0.1)


def _is_complete(path: Path) -> bool:
    """Whether it has an experiment: MLflow adds the first one when all else is made."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return database.execute("select 1 from experiments").fetchone() is not None
    except sqlite3.Error:
        return False
