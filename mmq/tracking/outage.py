"""A tracking store that is away: how long to wait, and what to do about what was not logged.

MLflow's client tries a request to a server 7 times again, after 0, 4, 8, ... 120 s: 4 minutes.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from mmq import disk
from mmq.unlogged import is_staged as is_staged
from mmq.unlogged import left as left
from mmq.unlogged import set_aside as set_aside
from mmq.unlogged import staged as staged
from mmq.unlogged import staging as staging
from mmq.unlogged import unstage as unstage

log = logging.getLogger(__name__)
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


class FilesAway(MlflowException):  # type: ignore[misc]
    """The place where MLflow keeps files takes none now: full, away, or not allowed."""


def unreachable(error: BaseException) -> bool:
    """Whether a call failed because the store is away or busy, not because of what was asked."""
    return isinstance(error, MlflowException) and error.error_code in AWAY


class WithoutTraceback(logging.Filter):
    """What MLflow logs of a database error: its first lines say all that a user needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, without its traceback."""
        record.exc_info = record.exc_text = None
        return True


def reason(error: BaseException) -> str:
    """Why a call failed, in a line without passwords."""
    said = disk.sentence(error) or (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"://[^/@\s]+@", "://***@", said)[:400]


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
    """Something that may fail where the store is away, or a disk is full: a warning, no error."""
    try:
        yield
    except (MlflowException, OSError) as error:
        if not unreachable(error) and disk.trouble(error) is None:
            raise
        log.warning("%s: the MLflow store cannot be used now (%s)", what, reason(error))


def status(client: MlflowClient, run_id: str) -> str | None:
    """A run's status; None where this store has no such run."""
    try:
        return str(client.get_run(run_id).info.status)
    except MlflowException as error:
        if unreachable(error):
            raise
        return None
