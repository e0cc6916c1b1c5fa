"""The database of a study: SQLite in MMQ_HOME, or PostgreSQL at the address in MMQ_STORAGE."""

import fcntl
import hashlib
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from mmq.errors import InputError
from mmq_search.retries import MAX_OUTAGE, Retries, StorageError, reason
from mmq_search.retrying_storage import RetryingStorage, explain_version

log = logging.getLogger(__name__)
T = TypeVar("T")
VARIABLE = "MMQ_STORAGE"  # an environment variable only: options are logged, and it has a password
EXPECTED = f"{VARIABLE}: write it as postgresql://USER:PASSWORD@HOST/DATABASE, with %40 for @"
DRIVER = "postgresql+psycopg"
HEARTBEAT, GRACE = 15, 60  # seconds between heartbeats, and without one until a trial is stale
WAIT = 120  # seconds to wait for a lock of another process on SQLite's file or on a study
REPORT_AFTER = 10  # seconds of waiting for a study's lock until that is reported
# UTC: the heartbeats of all machines are compared. Keepalives: a lost machine must not hold a
# lock, and a lost server must not block a machine.
POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "options": f"-c timezone=UTC -c lock_timeout={WAIT}s -c tcp_keepalives_idle=30 "
    "-c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
}
ADVICE = {  # by words of the database's message
    "full": "Free some space",
    "no space left": "Free some space",
    "readonly": "Make the file and its folder writable",
    "not a database": "It is damaged, or not SQLite: move it away",
    "malformed": "It is damaged: move it away, or restore it from a backup",
    "unable to open": "Check that it is a file with read and write permission",
    "authentication failed": f"Check the user and the password in {VARIABLE}",
}


class Storage:
    """Optuna's storage, and a lock for every study in it.

    The lock is PostgreSQL's own, or on a file beside SQLite's: it is released if its process dies.
    """

    def __init__(self, folder: Path, patient: bool = False, reading: bool = False) -> None:
        """Connect; InputError, without the password, if that fails.

        patient: wait for a database that is unavailable, as workers do.
        reading: create nothing; InputError if there is nothing to read.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")  # mmq has its own
        self.folder = folder
        address = os.environ.get(VARIABLE, "").strip()
        self.file = None if address else folder / "studies.db"
        self.url = (
            _postgresql(address) if address else URL.create("sqlite", database=str(self.file))
        )
        self.retries = Retries(self._error)
        self.retries.max_outage = MAX_OUTAGE if patient else 0
        self._locked_studies = threading.local()
        self._locks: Engine | None = None
        try:
            if reading:
                if self.file is not None and not self.file.is_file():
                    raise InputError(
                        f"study: there are no studies in {folder} ({self.file} is missing). Set "
                        f"MMQ_HOME, or start one with `mmq search`."
                    )
                self.retries.retry(lambda: self._open(create=False))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                if address:
                    self._locks = create_engine(
                        self.url,
                        connect_args=POSTGRESQL,
                        poolclass=NullPool,
                        isolation_level="AUTOCOMMIT",
                    )
                # two processes cannot create the tables at once
                self.exclusively("", lambda: self._open(create=True))
        except ImportError:
            raise InputError(
                f"{VARIABLE}: psycopg is not installed. Run `pip install 'mmq[postgresql]'`."
            ) from None
        except RuntimeError as error:  # Optuna's own, about the version of its tables
            raise StorageError(
                f"storage {self.address}: {explain_version(error, self.address)}"
            ) from None
        except OSError as error:
            raise self._error(str(error)) from None
        self.retries.max_outage = MAX_OUTAGE

    def _open(self, create: bool) -> None:
        remote = self.file is None
        arguments = POSTGRESQL if remote else {"timeout": WAIT}
        self.optuna = RetryingStorage(
            self.retries,
            self.url.render_as_string(hide_password=False),
            engine_kwargs={"connect_args": arguments, "pool_pre_ping": remote},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            skip_table_creation=not create,
        )
        self._inode = self._current_inode()

    @property
    def address(self) -> str:
        """The URL without its password, and without a query, which can contain one."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    def _error(self, message: str) -> StorageError:
        if self.url.password:
            message = message.replace(str(self.url.password), "***")
        matches = (text for words, text in ADVICE.items() if words in message.lower())
        advice = next(matches, "Make it available again")
        return StorageError(
            f"storage {self.address}: {message.rstrip('.')}. {advice}, then run the same command "
            f"again: it resumes and reuses every completed trial."
        )

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
            with self._locked(study) as check:
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

    @contextmanager
    def _locked(self, study: str) -> Iterator[Callable[[], None]]:
        """Hold a study's lock. Yields a check that raises if the lock was lost since."""
        if self._locks is None:
            with self._file_locked(study):
                yield self._check_file
            return
        key = int.from_bytes(hashlib.sha256(study.encode()).digest()[:8], signed=True)
        with self._locks.connect() as connection:  # closing it releases the lock
            connection.execute(text("select pg_advisory_lock(:key)"), {"key": key})
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
                    raise self._error(f"another process has locked {path} for {waited:.0f} s")
                if waited > REPORT_AFTER and not reported:
                    log.warning("Waiting for the process that has locked %s", path)
                    reported = True
                time.sleep(min(0.01 + waited / 20, 0.2))
            yield

    def _check_file(self) -> None:
        """StorageError if SQLite's file was removed: writes to it are lost."""
        if getattr(self, "optuna", None) is not None and self._current_inode() != self._inode:
            raise self._error(f"{self.file} was removed or replaced while it was in use")


def _check_connection(connection: Connection) -> None:
    connection.execute(text("select 1"))


def _postgresql(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # its message may contain the password
        raise InputError(EXPECTED) from None
    postgresql = url.drivername.partition("+")[0] in ("postgresql", "postgres")
    if not postgresql or not url.database or not url.host or "@" in url.host:
        raise InputError(EXPECTED)
    return url.set(drivername=DRIVER)


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
