"""A tracking store that is unavailable: which errors mean that, and how long to wait.

MLflow's client repeats a request 7 times, after 0, 4, 8, ... 120 s: 4 minutes in all. It waits up
to 120 s for each response, so a server that accepts requests and never responds would block it for
a quarter of an hour.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException
from requests import RequestException

from mmq.artifacts import unlogged
from mmq.system import disk
from mmq.system.secrets import redact

log = logging.getLogger(__name__)
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
SHORT_TIMEOUT, LONG_TIMEOUT = "8", "30"  # seconds per response: while a user waits, otherwise
# MLflow sends artifacts with requests and lets its errors through
STORE_ERRORS = (MlflowException, RequestException)
BUSY = (
    "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
)  # fmt: skip
# invalid or expired credentials, or another service at the address
REFUSED = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED", "ENDPOINT_NOT_FOUND")


class ArtifactsUnavailable(MlflowException):  # type: ignore[misc]
    """Artifacts cannot be written now: the disk is full or unavailable, or access is denied."""


def unreachable(error: BaseException) -> bool:
    """Whether a call failed because of the store, not because of the request.

    The store is unavailable or busy, it refuses access, or there is another server at its address.
    """
    if isinstance(error, MlflowException):
        return error.error_code in (*BUSY, *REFUSED)
    return isinstance(error, RequestException)


def refuses(error: BaseException) -> bool:
    """Whether the store refuses, so that a retry cannot help: 401, 403, 404 or an HTML page."""
    if isinstance(error, RequestException):
        status = error.response.status_code if error.response is not None else None
        return status in (401, 403, 404)
    return isinstance(error, MlflowException) and (
        error.error_code in REFUSED or "not in a valid JSON format" in str(error.message)
    )


class WithoutTraceback(logging.Filter):
    """Shortens MLflow's log of a database error to its message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Log the record without its traceback."""
        record.exc_info = record.exc_text = None
        return True


def reason(error: BaseException) -> str:
    """Why a call failed: one line without passwords."""
    text = disk.sentence(error) or (str(error).strip().splitlines() or [type(error).__name__])[0]
    return redact(text)[:400]


@contextmanager
def writing_artifacts() -> Iterator[None]:
    """Raise ArtifactsUnavailable if the disk refuses a run's files, which may be temporary."""
    try:
        yield
    except OSError as error:
        raise ArtifactsUnavailable(f"files cannot be stored: {reason(error)}") from error


@contextmanager
def short_timeouts() -> Iterator[None]:
    """Wait seconds, not minutes, for a store that does not respond: the user is waiting.

    A timeout that the user has set is left alone: their server is slow.
    """
    before = {name: os.environ.get(name) for name in (RETRIES, TIMEOUT)}
    os.environ[RETRIES] = str(min(2, int(before[RETRIES] or 2)))
    if before[TIMEOUT] in (None, LONG_TIMEOUT):
        os.environ[TIMEOUT] = SHORT_TIMEOUT
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def best_effort(warning: str) -> Iterator[None]:
    """Log a warning instead of failing if the store is unavailable or a disk is full."""
    try:
        yield
    except (*STORE_ERRORS, OSError) as error:
        if not unreachable(error) and disk.trouble(error) is None:
            raise
        why = "refuses access, or is not MLflow" if refuses(error) else "is unavailable"
        log.warning("%s: the MLflow store %s (%s)", warning, why, reason(error))


@contextmanager
def logged_later(run_id: str, name: str) -> Iterator[None]:
    """Around a run: if the store becomes unavailable once its files are staged, only a warning."""
    try:
        yield
    except STORE_ERRORS as error:
        if not (unreachable(error) and unlogged.is_staged(run_id)):
            raise
        log.warning("%s is logged later: %s", name, reason(error))
