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
from optuna.storages import RDBStorage
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from mmq.errors import InputError

log = logging.getLogger(__name__)
T = TypeVar("T")
VARIABLE = "MMQ_STORAGE"  # from the environment alone: options are logged, and it has a password
EXPECTED = f"{VARIABLE}: write it as postgresql://USER:PASSWORD@HOST/DATABASE, @ as %40"
DRIVER = "postgresql+psycopg"
HEARTBEAT, GRACE = 15, 60  # seconds between heartbeats, and without one until a trial is given up
WAIT = 120  # seconds for what another process holds: SQLite's file, a study's lock
PATIENCE = 300  # seconds that a database may be away in the middle of a study
# UTC: heartbeats of all machines are compared; keepalives: a lost machine must not hold a lock
POSTGRESQL = {
    "connect_timeout": 10,
    "options": f"-c timezone=UTC -c lock_timeout={WAIT}s -c tcp_keepalives_idle=30 "
    "-c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
}


class Storage:
    """Optuna's tables, and a lock for every study in them.

    The lock is the database's own, or a file beside SQLite's: a process that dies leaves it.
    """

    def __init__(self, folder: Path) -> None:
        """Connect; InputError, without the password, where that cannot be done."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")  # we have our own
        self.folder = folder
        given = os.environ.get(VARIABLE)
        self.url = _postgresql(given) if given else URL.create("sqlite", database=_file(folder))
        own = POSTGRESQL if given else {"timeout": WAIT}
        kwargs = {"connect_args": own, "pool_pre_ping": bool(given)}
        try:
            self._locks: Engine | None = None
            if given:
                self._locks = create_engine(
                    self.url, connect_args=own, poolclass=NullPool, isolation_level="AUTOCOMMIT"
                )
            with self.locked(""):  # two processes cannot create the tables at once
                self.optuna = RDBStorage(
                    self.url.render_as_string(hide_password=False),
                    engine_kwargs=kwargs,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                )
        except ImportError:
            raise InputError(
                f"{VARIABLE}: psycopg is not installed; pip install 'mmq[postgresql]'"
            ) from None
        except SQLAlchemyError as error:
            raise InputError(f"storage {self.address}: {self._reason(error)}") from None

    @property
    def address(self) -> str:
        """What may be shown: the URL without its password, and without a query that has one."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    def _reason(self, error: SQLAlchemyError) -> str:
        said = str(getattr(error, "orig", None) or error).strip()
        return said.replace(str(self.url.password), "***") if self.url.password else said

    @contextmanager
    def locked(self, study: str) -> Iterator[None]:
        """Hold a study's lock; no other process is in such a block of the same study."""
        if self._locks is None:
            path = self.folder / "studies" / f"{study}.lock"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
            return
        key = int.from_bytes(hashlib.sha256(study.encode()).digest()[:8], signed=True)
        with self._locks.connect() as connection:  # its end is the lock's
            connection.execute(text("select pg_advisory_lock(:key)"), {"key": key})
            yield


def _file(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / "studies.db")


def _postgresql(given: str) -> URL:
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):  # its text may hold the password
        raise InputError(EXPECTED) from None
    known = url.drivername.partition("+")[0] in ("postgresql", "postgres")
    if not known or not url.database or not url.host or "@" in url.host:
        raise InputError(EXPECTED)
    return url.set(drivername=DRIVER)


def patiently(call: Callable[[], T]) -> T:
    """What a call on the storage returns, which may be away for a while."""
    end, pause = time.monotonic() + PATIENCE, 0.5
    while True:
        try:
            return call()
        except (StorageInternalError, OperationalError, InterfaceError) as error:
            if time.monotonic() > end:
                raise
            log.warning("The study's database is away (%s); trying again.", type(error).__name__)
            time.sleep(pause)
            pause = min(2 * pause, 15)


@contextmanager
def heartbeat(storage: RDBStorage, trial_id: int) -> Iterator[None]:
    """Tell the other machines, as long as the block runs, that its trial is alive.

    Optuna's own thread does so within `study.optimize` only, and ends at the first error.
    """
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT):
            try:
                storage.record_heartbeat(trial_id)
            except (StorageInternalError, SQLAlchemyError) as error:
                log.warning("No heartbeat: %s", type(error).__name__)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
