"""Where studies live: SQLite in MMQ_HOME, or the PostgreSQL database that MMQ_STORAGE names."""

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
from mmq_search.patience import PATIENCE, Door, StorageError, reason
from mmq_search.tables import Tables, of_another_optuna

log = logging.getLogger(__name__)
T = TypeVar("T")
VARIABLE = "MMQ_STORAGE"  # from the environment alone: options are logged, and it has a password
EXPECTED = f"{VARIABLE}: write it as postgresql://USER:PASSWORD@HOST/DATABASE, @ as %40"
DRIVER = "postgresql+psycopg"
HEARTBEAT, GRACE = 15, 60  # seconds between heartbeats, and without one until a trial is given up
WAIT = 120  # seconds for what another process holds: SQLite's file, a study's lock
NEWS = 10  # seconds of waiting for a study's lock after which that is reported
# UTC: heartbeats of all machines are compared; keepalives: a lost machine must not hold a lock,
# nor a lost server a machine
POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "options": f"-c timezone=UTC -c lock_timeout={WAIT}s -c tcp_keepalives_idle=30 "
    "-c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
}
ADVICE = {  # by what a database says: what helps
    "full": "Free some space",
    "no space left": "Free some space",
    "readonly": "Make the file and its folder writable",
    "not a database": "It is damaged, or not SQLite: move it away",
    "malformed": "It is damaged: move it away, or restore it from a backup",
    "unable to open": "Check that it is a file that may be read and written",
    "authentication failed": f"Check the user and the password in {VARIABLE}",
}


class Storage:
    """Optuna's tables, and a lock for every study in them.

    The lock is the database's own, or a file beside SQLite's: a process that dies leaves it.
    """

    def __init__(self, folder: Path, patient: bool = False, reading: bool = False) -> None:
        """Connect; InputError, without the password, where that cannot be done.

        patient: wait for a database that is away, as one that was there a moment ago may be.
        reading: make nothing; InputError where there is nothing to read.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")  # we have our own
        self.folder = folder
        given = os.environ.get(VARIABLE, "").strip()
        self.file = None if given else folder / "studies.db"
        self.url = _postgresql(given) if given else URL.create("sqlite", database=str(self.file))
        self.door = Door(self._error)
        self.door.patience = PATIENCE if patient else 0
        self._held = threading.local()
        self._locks: Engine | None = None
        try:
            if reading:
                if self.file is not None and not self.file.is_file():
                    raise InputError(f"study: there are none in {folder} ({self.file} is missing)")
                self.door.patiently(lambda: self._open(making=False))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                if given:
                    self._locks = create_engine(
                        self.url,
                        connect_args=POSTGRESQL,
                        poolclass=NullPool,
                        isolation_level="AUTOCOMMIT",
                    )
                # two processes cannot create the tables at once
                self.exclusively("", lambda: self._open(making=True))
        except ImportError:
            raise InputError(
                f"{VARIABLE}: psycopg is not installed; pip install 'mmq[postgresql]'"
            ) from None
        except RuntimeError as error:  # Optuna's, of its tables' version
            raise StorageError(
                f"storage {self.address}: {of_another_optuna(error, self.address)}"
            ) from None
        except OSError as error:
            raise self._error(str(error)) from None
        self.door.patience = PATIENCE

    def _open(self, making: bool) -> None:
        remote = self.file is None
        own = POSTGRESQL if remote else {"timeout": WAIT}
        self.optuna = Tables(
            self.door,
            self.url.render_as_string(hide_password=False),
            engine_kwargs={"connect_args": own, "pool_pre_ping": remote},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            skip_table_creation=not making,
        )
        self._inode = self._now()

    @property
    def address(self) -> str:
        """What may be shown: the URL without its password, and without a query that has one."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    def _error(self, said: str) -> StorageError:
        if self.url.password:
            said = said.replace(str(self.url.password), "***")
        found = (text for words, text in ADVICE.items() if words in said.lower())
        advice = next(found, "When it can be used again")
        join = ": the" if advice.startswith("When") else "; the"
        return StorageError(
            f"storage {self.address}: {said.rstrip('.')}. {advice}{join} same command resumes, "
            f"and reuses every trial that was evaluated."
        )

    def _now(self) -> int | None:
        """What tells SQLite's file from one that took its place."""
        try:
            return None if self.file is None else self.file.stat().st_ino
        except OSError:
            return -1

    def exclusively(self, study: str, work: Callable[[], T]) -> T:
        """What `work` returns, done with the study's lock held: no other process does such work.

        Where the database goes away meanwhile, the lock is lost with it: then all of the work is
        done again, when it is back. So it must not matter how much of it was done already.
        """
        held: set[str] = self._held.__dict__.setdefault("studies", set())
        if study in held:
            return work()

        def locked() -> T:
            with self._locked(study) as check:
                held.add(study)
                try:
                    found = work()
                except Exception:
                    check()
                    raise
                finally:
                    held.discard(study)
                check()
                return found

        return self.door.patiently(locked)

    @contextmanager
    def _locked(self, study: str) -> Iterator[Callable[[], None]]:
        """Hold a study's lock; calling what this gives is an error where it was lost since."""
        if self._locks is None:
            with self._file_locked(study):
                yield self._check_file
            return
        key = int.from_bytes(hashlib.sha256(study.encode()).digest()[:8], signed=True)
        with self._locks.connect() as connection:  # its end is the lock's
            connection.execute(text("select pg_advisory_lock(:key)"), {"key": key})
            yield lambda: _check_connection(connection)

    @contextmanager
    def _file_locked(self, study: str) -> Iterator[None]:
        path = self.folder / "studies" / f"{study}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        began, told = time.monotonic(), False
        with path.open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waited = time.monotonic() - began
                if waited > PATIENCE:
                    raise self._error(f"another process holds {path} for {waited:.0f} s")
                if waited > NEWS and not told:
                    log.warning("Waiting for the process that holds %s", path)
                    told = True
                time.sleep(min(0.01 + waited / 20, 0.2))
            yield

    def _check_file(self) -> None:
        """StorageError where SQLite's file was removed: what is written to it is lost."""
        if getattr(self, "optuna", None) is not None and self._now() != self._inode:
            raise self._error(f"{self.file} was removed or replaced while it was in use")


def _check_connection(connection: Connection) -> None:
    connection.execute(text("select 1"))


def _postgresql(given: str) -> URL:
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):  # its text may hold the password
        raise InputError(EXPECTED) from None
    known = url.drivername.partition("+")[0] in ("postgresql", "postgres")
    if not known or not url.database or not url.host or "@" in url.host:
        raise InputError(EXPECTED)
    return url.set(drivername=DRIVER)


@contextmanager
def heartbeat(storage: Tables, trial_id: int) -> Iterator[None]:
    """Tell the other machines, as long as the block runs, that its trial is alive.

    Optuna's own thread does so within `study.optimize` only, and ends at the first error.
    """
    stop = threading.Event()

    def beat() -> None:
        away = False
        while not stop.wait(HEARTBEAT):
            try:
                with storage.door.once():  # the next one comes soon
                    storage.record_heartbeat(trial_id)
                away = False
            except (StorageInternalError, SQLAlchemyError, StorageError) as error:
                if not away:
                    log.warning("No heartbeat: %s", reason(error))
                away = True

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
