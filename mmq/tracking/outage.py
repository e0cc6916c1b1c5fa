"""A tracking store that is away: how long to wait, and what to do about what was not logged.

MLflow's client tries a request to a server 7 times again, after 0, 4, 8, ... 120 s: 4 minutes.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.home import home
from mmq.owner import is_gone, owner

log = logging.getLogger(__name__)
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


def unreachable(error: BaseException) -> bool:
    """Whether a call failed because the store is away or busy, not because of what was asked."""
    return isinstance(error, MlflowException) and error.error_code in AWAY


@contextmanager
def hasty() -> Iterator[None]:
    """Give a store that does not answer seconds, not minutes: somebody is waiting."""
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = str(min(2, int(before or 2)))
    try:
        yield
    finally:
        if before is None:
            del os.environ[RETRIES]
        else:
            os.environ[RETRIES] = before


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Something that may fail where the store is away: it says so and goes on."""
    try:
        yield
    except MlflowException as error:
        if not unreachable(error):
            raise
        log.warning("%s: the MLflow store is away", what)


def staged(run_id: str) -> Path:
    """The folder in which this process keeps a run's files until they are logged."""
    return home() / "unlogged" / f"{run_id}@{owner()}"


@contextmanager
def staging(run_id: str) -> Iterator[Path]:
    """A folder to write a run's files into; it is staged when the block ends, whole."""
    aside = staged(run_id).with_name(f"{run_id}.part")
    aside.mkdir(parents=True, exist_ok=True)
    yield aside
    aside.rename(staged(run_id))


def is_staged(run_id: str) -> bool:
    """Whether a run has files, of whichever process, that were not logged yet."""
    return any((home() / "unlogged").glob(f"{run_id}@*"))


def unstage(run_id: str) -> None:
    """The run's files are logged."""
    shutil.rmtree(staged(run_id), ignore_errors=True)


def left() -> Iterator[tuple[str, Path]]:
    """Runs and their staged files that are this process's, or from now on are: theirs died."""
    for path in sorted((home() / "unlogged").glob("*@*")):
        run_id, _, who = path.name.partition("@")
        if who != owner():
            if not is_gone(who):
                continue
            try:
                path.rename(staged(run_id))
            except FileNotFoundError:  # another process was quicker
                continue
        yield run_id, staged(run_id)


def status(client: MlflowClient, run_id: str) -> str | None:
    """A run's status; None where this store has no such run."""
    try:
        return str(client.get_run(run_id).info.status)
    except MlflowException as error:
        if unreachable(error):
            raise
        return None
