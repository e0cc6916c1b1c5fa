"""Optuna's storage in the database of a study, and the locks of its studies."""

import fcntl
import hashlib
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from mmq.errors import InputError
from mmq.system.database import GRACE, HEARTBEAT, VARIABLE, WAIT, Database
from mmq.system.retries import MAX_OUTAGE, StorageError, reason
from mmq.system.signals import signals_deferred
from mmq_search.retrying_storage import RetryingStorage, explain_version

log = logging.getLogger(__name__)
T = TypeVar("T")
REPORT_AFTER = 10  # seconds of waiting for a study's lock until that is reported


class Storage:
    """Optuna's storage, and a lock for every study in it.

    The lock is the database's own, or on a file beside SQLite's: it is released if its process
    dies.
    """

    def __init__(self, folder: Path, patient: bool = False, reading: bool = False) -> None:
        """Connect; InputError, without the password, if that fails.

        patient: wait for a database that is unavailable, as workers do.
        reading: create nothing; InputError if there is nothing to read.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")  # mmq has its own
        self.database = Database(folder, wrappers=(StorageInternalError,))
        self.folder, self.file, self.retries = folder, self.database.file, self.database.retries
        self.retries.max_outage = MAX_OUTAGE if patient else 0
        self._locked_studies = threading.local()
        try:
            if reading:
                if not has_studies(self.database):
                    raise InputError(
                        f"study: there are no studies in {self.file or self.database.address}. "
                        f"Set MMQ_HOME or {VARIABLE}, or start one with `mmq search`."
                    )
                self.retries.retry(lambda: self._open(create=False))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                # two processes cannot create the tables at once
                self.exclusively("", lambda: self._open(create=True))
        except ImportError:
            raise self.database.missing_driver() from None
        except RuntimeError as error:  # Optuna's own, about the version of its tables
            raise StorageError(
                f"storage {self.database.address}: {explain_version(error, self.database.address)}"
            ) from None
        except OSError as error:
            raise self.database.explain(str(error)) from None
        self.retries.max_outage = MAX_OUTAGE

    def _open(self, create: bool) -> None:
        self.optuna = RetryingStorage(
            self.retries,
            self.database.url.render_as_string(hide_password=False),
            engine_kwargs={
                "connect_args": self.database.connect_args,
                "pool_pre_ping": self.file is None,
            },
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            skip_table_creation=not create,
        )
        self.optuna.engine.dispose()  # checking the tables took two connections; one is enough
        self._inode = self._current_inode()

    def _current_inode(self) -> int | None:
        """Identifies SQLite's file: another file in its place has another inode."""
        try:
            return None if self.file is None else self.file.stat().st_ino
        except OSError:
            return -1

    def exclusively(self, study: str, work: Callable[[], T]) -> T:
        """The result of `work`, done while this process holds the study's lock.

        If the database becomes unavailable, the lock is lost with it, and all of the work is
        repeated when it is back. So work must be safe to repeat from any point.
        """
        locks: set[str] = self._locked_studies.__dict__.setdefault("names", set())
        if study in locks:
            return work()

        def locked() -> T:
            with self._locked(study) as check, self._reading_once():
                locks.add(study)
                try:
                    result = work()
                except Exception:
                    check()
                    raise
                finally:
                    locks.discard(study)
                check()
                return result

        return self.retries.retry(locked)

    def _reading_once(self) -> AbstractContextManager[None]:
        """Read trials again only after own writes; nothing at first, without tables to read."""
        storage = getattr(self, "optuna", None)
        return nullcontext() if storage is None else storage.reading_once()

    @contextmanager
    def _locked(self, study: str) -> Iterator[Callable[[], None]]:
        """Hold a study's lock. Yields a check that raises if the lock was lost since."""
        if self.file is not None:
            with self._file_locked(study):
                yield self._check_file
            return
        engine = self.database.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection, _locked(connection, study):
            yield lambda: _check_connection(connection)

    @contextmanager
    def _file_locked(self, study: str) -> Iterator[None]:
        path = self.folder / "studies" / f"{study}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        start, reported = time.monotonic(), False
        with path.open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waited = time.monotonic() - start
                if waited > MAX_OUTAGE:
                    raise self.database.explain(
                        f"another process has locked {path} for {waited:.0f} s"
                    )
                if waited > REPORT_AFTER and not reported:
                    log.warning("Waiting for the process that has locked %s", path)
                    reported = True
                time.sleep(min(0.01 + waited / 20, 0.2))
            yield

    def _check_file(self) -> None:
        """StorageError if SQLite's file was removed: writes to it are lost."""
        if getattr(self, "optuna", None) is not None and self._current_inode() != self._inode:
            raise self.database.explain(f"{self.file} was removed or replaced while it was in use")


def has_studies(database: Database) -> bool:
    """Whether Optuna's tables are complete: their version, which this reads, is written last.

    A search that starts creates them one by one. Opening them before would complete them, too, and
    make both processes fail.
    """
    if database.file is not None and not database.file.is_file():
        return False  # connecting would create it

    def read(connection: Connection) -> bool:
        if not inspect(connection).has_table("alembic_version"):
            return False
        return connection.execute(text("select 1 from alembic_version")).first() is not None

    return database.run(read)


def _check_connection(connection: Connection) -> None:
    connection.execute(text("select 1"))


@contextmanager
def _locked(connection: Connection, study: str) -> Iterator[None]:
    """Hold the database's lock of a study, which belongs to this connection."""
    name = hashlib.sha256(study.encode()).digest()[:8]
    key: dict[str, int | str]
    if connection.dialect.name == "postgresql":
        key = {"key": int.from_bytes(name, signed=True)}
        release = text("select pg_advisory_unlock(:key)")
    else:
        key = {"key": f"mmq-{name.hex()}"}
        release = text("select release_lock(:key)")
    try:  # acquired within: an interrupt right after it must release the lock
        _acquire(connection, key, study)
        yield
    finally:
        try:
            with signals_deferred():
                connection.execute(release, key)
        except SQLAlchemyError:
            connection.invalidate()  # closing it releases the lock, too


def _acquire(connection: Connection, key: dict[str, int | str], study: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_lock(:key)"), key)
        return
    query = text("select get_lock(:key, :seconds)")
    while not connection.scalar(query, {**key, "seconds": WAIT}):
        log.warning("Waiting for the process that has locked the study %s", study)


@contextmanager
def heartbeat(storage: RetryingStorage, trial_id: int) -> Iterator[None]:
    """Show the other machines that this trial's process is alive while the block runs.

    Optuna's own thread runs within `study.optimize` only, and ends at the first error.
    """
    stop = threading.Event()

    def beat() -> None:
        failing = False
        while not stop.wait(HEARTBEAT):
            try:
                with storage.retries.once():  # the next heartbeat comes soon
                    storage.record_heartbeat(trial_id)
                failing = False
            except (StorageInternalError, SQLAlchemyError, StorageError) as error:
                if not failing:
                    log.warning("No heartbeat was written: %s", reason(error))
                failing = True

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
