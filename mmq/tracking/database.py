"""A SQLite store for MLflow, created in one step.

MLflow creates the tables of a new store one by one, which takes about a second. If a second
process opens the store in that time, it creates them too, and one or both fail or leave the store
incomplete.
"""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mmq.errors import InputError
from mmq.tracking.mlflow_internals import has_experiments
from mmq.tracking.moved import update_paths

QUIET = 2.0  # seconds without a change after which no process is creating the store
WAIT = 60.0  # seconds to wait for a process that is creating it


def ensure_database() -> None:
    """Create the SQLite store in use if it is missing, or wait for the process that creates it.

    The paths in a store that was moved are updated.
    """
    if not (path := store_file()):
        return
    _check(path)
    if path.exists():
        _wait(path)
        update_paths(path)
    else:
        _create(path)


def _check(path: Path) -> None:
    """InputError if no store can be at this path: MLflow would try for two minutes."""
    folder, problem = path.absolute().parent, ""
    if not folder.is_dir():
        problem = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK):  # SQLite writes a journal next to its file
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
            f"MLflow store {mlflow.get_tracking_uri()}: {problem}. Set "
            f"MLFLOW_TRACKING_URI to another one, like sqlite:////ABSOLUTE/PATH/mlflow.db."
        )


def store_file() -> Path | None:
    """The SQLite file of the store in use; None for another kind of store."""
    with suppress(ArgumentError):
        url = make_url(str(mlflow.get_tracking_uri()))
        if url.drivername == "sqlite" and url.database and url.database != ":memory:":
            return Path(url.database)
    return None


def _create(path: Path) -> None:
    """Create the store next to its path, then move it there, unless another process was first."""
    with tempfile.TemporaryDirectory(prefix=".new-store-", dir=path.parent) as folder:
        new = Path(folder) / path.name
        client = MlflowClient(f"sqlite:///{new.resolve()}")
        client.search_experiments(max_results=1)
        # it exists already, or the disk has no hard links and MLflow creates it later
        with suppress(OSError):
            os.link(new, path)


def _wait(path: Path) -> None:
    end = time.monotonic() + WAIT
    while time.monotonic() < end and time.time() - path.stat().st_mtime < QUIET:
        if has_experiments(path):
            return
        time.sleep(0.1)
