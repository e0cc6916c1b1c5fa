"""A tracking store that is away: how long to wait, and what to do about what was not logged.

MLflow's client tries a request to a server 7 times again, after 0, 4, 8, ... 120 s: 4 minutes. It
waits for each answer for up to 120 s: a server that takes requests and never answers would hold it
for a quarter of an hour.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests import RequestException

from mmq.home import home
from mmq.owner import is_gone, owner

log = logging.getLogger(__name__)
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
HASTE, PATIENCE = "8", "30"  # seconds for an answer: where somebody waits, and else
# artifacts are sent by requests itself, whose errors MLflow passes on
STORE_ERRORS = (MlflowException, RequestException)
BUSY = (
    "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
)  # fmt: skip
# credentials that are not valid, or no longer; an address where something else answers
REFUSED = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED", "ENDPOINT_NOT_FOUND")


def unreachable(error: BaseException) -> bool:
    """Whether a call failed because of the store, not because of what was asked.

    It is away or busy, it refuses access, or what answers is no MLflow server.
    """
    if isinstance(error, MlflowException):
        return error.error_code in (*BUSY, *REFUSED)
    return isinstance(error, RequestException)


def refuses(error: BaseException) -> bool:
    """Whether the store answers, and will answer the same next time: 401, 403, 404, HTML."""
    if isinstance(error, RequestException):
        status = error.response.status_code if error.response is not None else None
        return status in (401, 403, 404)
    return isinstance(error, MlflowException) and (
        error.error_code in REFUSED or "not in a valid JSON format" in str(error.message)
    )


@contextmanager
def hasty() -> Iterator[None]:
    """Give a store that does not answer seconds, not minutes: somebody is waiting.

    A timeout that the user has set counts: their server is slow.
    """
    before = {name: os.environ.get(name) for name in (RETRIES, TIMEOUT)}
    os.environ[RETRIES] = str(min(2, int(before[RETRIES] or 2)))
    if before[TIMEOUT] in (None, PATIENCE):
        os.environ[TIMEOUT] = HASTE
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Something that may fail where the store is away: it says so and goes on."""
    try:
        yield
    except STORE_ERRORS as error:
        if not unreachable(error):
            raise
        why = "refuses access or is another server" if refuses(error) else "is away"
        log.warning("%s: the MLflow store %s", what, why)


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
