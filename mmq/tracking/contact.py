"""Errors of the tracking store as messages with advice, at the start and the end of a command."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mmq.errors import InputError
from mmq.system.secrets import redact
from mmq.tracking.mlflow_internals import defer_signals
from mmq.tracking.offline import (
    SHORT_TIMEOUT,
    STORE_ERRORS,
    TIMEOUT,
    refuses,
    short_timeouts,
    unreachable,
)

log = logging.getLogger(__name__)
REPORT_AFTER = 4.0  # seconds of waiting until that is reported
MAX_SHOWN = 300  # characters of a store's message
RESUME_HINT = "Completed trials are saved. When the store is back, the same command resumes."


@contextmanager
def contacting() -> Iterator[None]:
    """Around the first calls to the store: wait seconds, not minutes; InputError if they fail."""
    uri = redact(str(mlflow.get_tracking_uri()))
    waiting = threading.Timer(
        REPORT_AFTER, log.warning, ("Waiting for the MLflow store %s ...", uri)
    )
    waiting.daemon = True
    waiting.start()
    try:
        with short_timeouts():
            yield
    except STORE_ERRORS as error:
        raise InputError(explained(error)) from error
    finally:
        waiting.cancel()


def open_client() -> MlflowClient:
    """A client of the store in use; InputError if its address cannot be used."""
    uri = redact(str(mlflow.get_tracking_uri()))
    try:
        client = MlflowClient()
        defer_signals(client)
        return client
    except (MlflowException, SQLAlchemyError, ImportError, ValueError, OSError) as error:
        message = " ".join(str(error).split())[:MAX_SHOWN]
        raise InputError(
            f"MLFLOW_TRACKING_URI: {uri!r} cannot be used ({message}). Give a server, like "
            f"http://HOST:5000, or a file, like sqlite:////ABSOLUTE/PATH/mlflow.db."
        ) from error


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Around a command's work: a store that becomes unavailable ends it with an InputError."""
    try:
        yield
    except STORE_ERRORS as error:
        if not unreachable(error):
            raise
        raise InputError(f"{explained(error)} {RESUME_HINT}") from error


def explained(error: BaseException) -> str:
    """The store's message, and what to do about it."""
    uri = redact(str(mlflow.get_tracking_uri()))
    message = " ".join(str(getattr(error, "message", error)).split())
    if "timed out" in message.lower() or "timeout" in message.lower():
        seconds = os.environ.get(TIMEOUT) or SHORT_TIMEOUT
        hint = (
            f"It does not respond. Check that the server runs; if it is slow, give it more than "
            f"{seconds} s with {TIMEOUT}."
        )
    elif getattr(error, "error_code", "") in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED",
                                              "PERMISSION_DENIED"):  # fmt: skip
        hint = (
            "It refuses access. Check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN."
        )
    elif refuses(error):
        hint = "There is no MLflow server at this address. Check the host, the port and the path."
    else:
        hint = "Check that it runs."
    shown = message if len(message) <= MAX_SHOWN else f"{message[:MAX_SHOWN]} ..."
    return f"MLflow store {uri}: {shown} {hint} Set MLFLOW_TRACKING_URI to use another store."
