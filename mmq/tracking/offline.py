"""A tracking store that is away: how long to wait, and what to do about what was not logged.

MLflow's client tries a request to a server 7 times again, after 0, 4, 8, ... 120 s: 4 minutes. It
waits for each answer for up to 120 s: a server that takes requests and never answers would hold it
for a quarter of an hour.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from requests import RequestException

from mmq.artifacts.unlogged import is_staged as is_staged
from mmq.artifacts.unlogged import left as left
from mmq.artifacts.unlogged import set_aside as set_aside
from mmq.artifacts.unlogged import staged as staged
from mmq.artifacts.unlogged import staging as staging
from mmq.artifacts.unlogged import unstage as unstage
from mmq.system import disk
from mmq.system.secrets import redact

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


class FilesAway(MlflowException):  # type: ignore[misc]
    """The place where MLflow keeps files takes none now: full, away, or not allowed."""


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


class WithoutTraceback(logging.Filter):
    """What MLflow logs of a database error: its first lines say all that a user needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, without its traceback."""
        record.exc_info = record.exc_text = None
        return True


def reason(error: BaseException) -> str:
    """Why a call failed, in a line without passwords."""
    said = disk.sentence(error) or (str(error).strip().splitlines() or [type(error).__name__])[0]
    return redact(said)[:400]


@contextmanager
def files_of_store() -> Iterator[None]:
    """Count a disk that refuses a run's files as a store that is away: it may be back."""
    try:
        yield
    except OSError as error:
        raise FilesAway(f"files cannot be stored: {reason(error)}", TEMPORARILY_UNAVAILABLE) \
            from error  # fmt: skip


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
    """Something that may fail where the store is away, or a disk is full: a warning, no error."""
    try:
        yield
    except (*STORE_ERRORS, OSError) as error:
        if not unreachable(error) and disk.trouble(error) is None:
            raise
        why = "refuses access or is another server" if refuses(error) else "cannot be used now"
        log.warning("%s: the MLflow store %s (%s)", what, why, reason(error))


def status(client: MlflowClient, run_id: str) -> str | None:
    """A run's status; None where this store has no such run."""
    try:
        return str(client.get_run(run_id).info.status)
    except MlflowException as error:
        if unreachable(error):
            raise
        return None
