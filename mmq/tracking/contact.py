"""The first contact with a store, and the last: what it answers becomes a sentence."""

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
from mmq.tracking.offline import HASTE, STORE_ERRORS, TIMEOUT, hasty, refuses, unreachable

log = logging.getLogger(__name__)
SILENCE = 4.0  # seconds after which a line says what is waited for
SHOWN = 300  # characters of an answer
AGAIN = "Completed trials are saved. When the store is back, the same command logs and resumes."


@contextmanager
def contacting() -> Iterator[None]:
    """The first calls to the store in use: seconds, not minutes, and InputError if they fail."""
    uri = redact(str(mlflow.get_tracking_uri()))
    waiting = threading.Timer(SILENCE, log.warning, ("Waiting for the MLflow store %s ...", uri))
    waiting.daemon = True
    waiting.start()
    try:
        with hasty():
            yield
    except STORE_ERRORS as error:
        raise InputError(explained(error)) from error
    finally:
        waiting.cancel()


def open_client() -> MlflowClient:
    """A client of the store in use; InputError where its address cannot be used."""
    uri = redact(str(mlflow.get_tracking_uri()))
    try:
        return MlflowClient()
    except (MlflowException, SQLAlchemyError, ImportError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:SHOWN]
        raise InputError(
            f"MLFLOW_TRACKING_URI: {uri!r} cannot be used ({said}). Give a server, like "
            f"http://HOST:5000, or a file, like sqlite:////ABSOLUTE/PATH/mlflow.db."
        ) from error


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Around a command's work: a store that goes away ends it with a sentence, not a traceback."""
    try:
        yield
    except STORE_ERRORS as error:
        if not unreachable(error):
            raise
        raise InputError(f"{explained(error)} {AGAIN}") from error


def explained(error: BaseException) -> str:
    """What the store said, and what to do about it."""
    uri = redact(str(mlflow.get_tracking_uri()))
    said = " ".join(str(getattr(error, "message", error)).split())
    if "timed out" in said.lower() or "timeout" in said.lower():
        seconds = os.environ.get(TIMEOUT) or HASTE
        hint = (
            f"It does not answer. Check that the server runs; if it is slow, give it more than "
            f"{seconds} s with {TIMEOUT}."
        )
    elif getattr(error, "error_code", "") in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED",
                                              "PERMISSION_DENIED"):  # fmt: skip
        hint = (
            "It refuses access. Check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN."
        )
    elif refuses(error):
        hint = "No MLflow server answers there. Check the address and its path."
    else:
        hint = "Check that it runs."
    shown = said if len(said) <= SHOWN else f"{said[:SHOWN]} ..."
    return f"MLflow store {uri}: {shown} {hint} Another store is set with MLFLOW_TRACKING_URI."
