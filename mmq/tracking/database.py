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

QUIET = 2.0  # seconds without a change, after which nobody is at work on a store
WAIT = 60.0


def ensure_database() -> None:
    """Make the SQLite store in use, if it is one and not there; wait for who makes it now."""
    if not (path := _file()):
        return
    if path.exists():
        _wait(path)
    elif path.parent.is_dir():
        _make(path)


def _file() -> Path | None:
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
