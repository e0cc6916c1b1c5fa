"""What a study's database may do: go away for a while, which is waited for, or fail for good."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mmq.errors import InputError

log = logging.getLogger(__name__)
T = TypeVar("T")
PATIENCE = 300  # seconds that a database may be away in the middle of a study
SHORT = 5  # the same once that was too long, or somebody waits for the end
FIRST, LONGEST = 0.2, 5.0  # seconds between two attempts
PASSING = ("08", "40", "57", "53300", "53200", "55P03")  # classes and codes of PostgreSQL's errors
FINAL = (  # what waiting does not change, in the words of PostgreSQL, libpq and SQLite
    "authentication", "no password supplied", "pg_hba.conf", "does not exist",
    "permission denied", "read-only", "readonly", "disk is full", "no space left",
    "could not translate host name", "invalid port", "is not permitted to log in",
)  # fmt: skip
BUSY = ("database is locked", "database table is locked", "database schema is locked")


class StorageError(InputError):
    """The study's database cannot be used; what was evaluated is saved."""


def passes(error: BaseException | None) -> bool:
    """Whether an error of the database is one that goes away by waiting."""
    if isinstance(error, StorageInternalError):  # Optuna's wrapping
        error = error.__cause__
    if isinstance(error, PendingRollbackError | PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    text = reason(error).lower()
    if type(error.orig).__module__.startswith("sqlite3"):
        return any(words in text for words in BUSY)
    code = getattr(error.orig, "sqlstate", None)
    if code is not None:
        return str(code).startswith(PASSING)
    lost = type(error.orig).__name__ in ("OperationalError", "InterfaceError")
    final = any(words in text for words in FINAL)
    return bool(error.connection_invalidated) or (lost and not final)


def reason(error: BaseException) -> str:
    """What the database itself said, without the statement and its values."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    said = str(getattr(error, "orig", None) or error).strip()
    return " ".join(said.split()) or type(error).__name__


class Door:
    """Every read and write of a study's database goes through it.

    A call that fails since the database is away is made again until it succeeds, or patience ends
    with a StorageError. Within such a call, others are not repeated: the outermost one is, as a
    whole. explain: makes the StorageError of what the database said.
    """

    def __init__(self, explain: Callable[[str], StorageError]) -> None:
        self.patience: float = PATIENCE
        self.outages = 0  # that this process saw
        self.explain = explain
        self._inside = threading.local()

    @property
    def _is_inside(self) -> bool:
        return bool(getattr(self._inside, "value", False))

    @contextmanager
    def once(self) -> Iterator[None]:
        """Calls of this thread are made once, and their errors are the database's own."""
        before, self._inside.value = self._is_inside, True
        try:
            yield
        finally:
            self._inside.value = before

    @contextmanager
    def hurrying(self) -> Iterator[None]:
        """After an interrupt within this block nobody waits for the database for long."""
        try:
            yield
        except KeyboardInterrupt:
            self.patience = min(self.patience, SHORT)
            raise

    def patiently(self, call: Callable[[], T]) -> T:
        """What a call on the database returns, which may be away for a while."""
        if self._is_inside:
            return call()
        began, pause, waited = time.monotonic(), FIRST, False
        while True:
            try:
                with self.once():
                    found = call()
            except (StorageInternalError, SQLAlchemyError) as error:
                said = reason(error)
                if not passes(error):
                    raise self.explain(said) from None
                if time.monotonic() + pause > began + self.patience:
                    self.patience = min(self.patience, SHORT)  # for all that ends with this
                    raise self.explain(f"it is away: {said}") from None
                if not waited:
                    log.warning("The study's database is away (%s); trying again.", said)
                    self.outages += 1
                waited = True
                time.sleep(pause)
                pause = min(2 * pause, LONGEST)
            else:
                if waited:
                    log.warning("The database is back after %.0f s.", time.monotonic() - began)
                return found
