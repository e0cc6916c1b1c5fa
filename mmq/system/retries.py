"""Retries while a study's database is unavailable: transient errors, and time limits."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mmq.errors import InputError

log = logging.getLogger(__name__)
T = TypeVar("T")
MAX_OUTAGE = 300  # seconds to wait for a database in the middle of a study
SHORT_OUTAGE = 5  # seconds after that was too long, or after an interrupt
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between two attempts
TRANSIENT = ("08", "40", "57", "53300", "53200", "55P03")  # PostgreSQL's error classes and codes
PERMANENT = (  # errors that waiting does not fix, in the words of PostgreSQL, libpq and SQLite
    "authentication", "no password supplied", "pg_hba.conf", "does not exist",
    "permission denied", "read-only", "readonly", "disk is full", "no space left",
    "could not translate host name", "invalid port", "is not permitted to log in",
)  # fmt: skip
MYSQL = (1040, 1053, 1205, 1213, 2002, 2003, 2006, 2013)  # too many connections, lost, deadlock
BUSY = ("database is locked", "database table is locked", "database schema is locked")


class StorageError(InputError):
    """The study's database cannot be used; completed trials are saved."""


def is_transient(error: BaseException | None) -> bool:
    """Whether waiting can fix an error of the database."""
    error = _unwrapped(error)
    if isinstance(error, PendingRollbackError | PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    text = reason(error).lower()
    if type(error.orig).__module__.startswith("sqlite3"):
        return any(words in text for words in BUSY)
    if type(error.orig).__module__.startswith("pymysql"):
        number = next(iter(getattr(error.orig, "args", ())), None)
        return bool(error.connection_invalidated) or number in MYSQL
    code = getattr(error.orig, "sqlstate", None)
    if code is not None:
        return str(code).startswith(TRANSIENT)
    lost = type(error.orig).__name__ in ("OperationalError", "InterfaceError")
    permanent = any(words in text for words in PERMANENT)
    return bool(error.connection_invalidated) or (lost and not permanent)


def reason(error: BaseException) -> str:
    """The database's own message, without the statement and its values."""
    error = _unwrapped(error) or error
    message = str(getattr(error, "orig", None) or error).strip()
    return " ".join(message.split()) or type(error).__name__


def _unwrapped(error: BaseException | None) -> BaseException | None:
    """The database's own error, which Optuna wraps in one of its own."""
    if error is None or isinstance(error, SQLAlchemyError) or error.__cause__ is None:
        return error
    return error.__cause__


class Retries:
    """Repeats calls to a study's database while it is unavailable, up to `max_outage` seconds.

    A call within a call is not repeated by itself: the outermost one is, as a whole. explain:
    makes a StorageError of the database's message. wrappers: errors of other packages around those
    of the database.
    """

    def __init__(
        self,
        explain: Callable[[str], StorageError],
        wrappers: tuple[type[Exception], ...] = (),
    ) -> None:
        self.errors: tuple[type[Exception], ...] = (SQLAlchemyError, *wrappers)
        self.max_outage: float = MAX_OUTAGE
        self.outages = 0  # number that this process noticed
        self.explain = explain
        self._inside = threading.local()

    @property
    def _is_inside(self) -> bool:
        return bool(getattr(self._inside, "value", False))

    @contextmanager
    def once(self) -> Iterator[None]:
        """Make this thread's calls once, and let the database's own errors through."""
        before, self._inside.value = self._is_inside, True
        try:
            yield
        finally:
            self._inside.value = before

    @contextmanager
    def short_after_interrupt(self) -> Iterator[None]:
        """Wait only briefly for the database after an interrupt within this block."""
        try:
            yield
        except KeyboardInterrupt:
            self.max_outage = min(self.max_outage, SHORT_OUTAGE)
            raise

    def retry(self, call: Callable[[], T]) -> T:
        """The result of a call to the database, repeated while the database is unavailable.

        StorageError if that takes longer than `max_outage`, or if waiting cannot help.
        """
        if self._is_inside:
            return call()
        start, pause, waited = time.monotonic(), FIRST_PAUSE, False
        while True:
            try:
                with self.once():
                    result = call()
            except self.errors as error:
                message = reason(error)
                if not is_transient(error):
                    raise self.explain(message) from None
                if time.monotonic() + pause > start + self.max_outage:
                    self.max_outage = min(self.max_outage, SHORT_OUTAGE)  # for a brief clean-up
                    raise self.explain(f"it is unavailable: {message}") from None
                if not waited:
                    log.warning("The study's database is unavailable (%s); retrying.", message)
                    self.outages += 1
                waited = True
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if waited:
                    log.warning(
                        "The database is available again after %.0f s.", time.monotonic() - start
                    )
                return result
