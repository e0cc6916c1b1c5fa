"""The database that the processes of a study share.

SQLite in MMQ_HOME for the processes of one machine; PostgreSQL or MySQL at the address in
MMQ_STORAGE for several machines.
"""

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from mmq.errors import InputError
from mmq.system.mounts import network_file_system
from mmq.system.retries import MAX_OUTAGE, Retries, StorageError
from mmq.system.signals import signals_deferred

T = TypeVar("T")
VARIABLE = "MMQ_STORAGE"  # an environment variable only: options are logged, and it has a password
EXPECTED = (
    f"{VARIABLE}: write it as postgresql://USER:PASSWORD@HOST/DATABASE or "
    f"mysql://USER:PASSWORD@HOST/DATABASE, with %40 for @"
)
DRIVERS = {  # by the scheme of the address: SQLAlchemy's driver, and the extra that installs it
    "postgresql": ("postgresql+psycopg", "postgresql"),
    "postgres": ("postgresql+psycopg", "postgresql"),
    "mysql": ("mysql+pymysql", "mysql"),
    "mariadb": ("mysql+pymysql", "mysql"),
}
HEARTBEAT, GRACE = 15, 60  # seconds between heartbeats, and without one until work is released
WAIT = 120  # seconds to wait for a lock of another process on SQLite's file or on a study
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
MYSQL = {
    "connect_timeout": 10,
    "read_timeout": WAIT + 30,
    "write_timeout": 60,
    "init_command": f"set time_zone = '+00:00', innodb_lock_wait_timeout = {WAIT}",
}
ADVICE = {  # by words of the database's message
    "full": "Free some space",
    "no space left": "Free some space",
    "readonly": "Make the file and its folder writable",
    "not a database": "It is damaged, or not SQLite: move it away",
    "malformed": "It is damaged: move it away, or restore it from a backup",
    "unable to open": "Check that it is a file with read and write permission",
    "authentication failed": f"Check the user and the password in {VARIABLE}",
    "access denied": f"Check the user and the password in {VARIABLE}",
}


def is_shared() -> bool:
    """Whether the database can be reached from other machines."""
    return bool(os.environ.get(VARIABLE, "").strip())


class Database:
    """The address of the database, how to connect, and how to wait for it."""

    def __init__(self, folder: Path, wrappers: tuple[type[Exception], ...] = ()) -> None:
        """InputError, without the password, for an address that cannot be used.

        wrappers: as for `Retries`.
        """
        address = os.environ.get(VARIABLE, "").strip()
        self.folder = folder
        self.file = None if address else folder / "studies.db"
        self.url = parsed(address) if address else URL.create("sqlite", database=str(self.file))
        if self.file is not None and (kind := network_file_system(folder)):
            raise InputError(
                f"MMQ_HOME: {folder} is on a network file system ({kind}), where SQLite's locks "
                f"do not exclude other machines. Set MMQ_HOME to a local folder, and {VARIABLE} "
                f"to a PostgreSQL or MySQL database if several machines work together."
            )
        self.retries = Retries(self.explain, wrappers)
        self.retries.max_outage = MAX_OUTAGE

    @property
    def kind(self) -> str:
        """sqlite, postgresql or mysql."""
        return self.url.get_backend_name()

    @property
    def address(self) -> str:
        """The URL without its password, and without a query, which can contain one."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    @property
    def connect_args(self) -> dict[str, Any]:
        """Arguments of a connection: timeouts, keepalives, UTC."""
        arguments: dict[str, dict[str, Any]] = {"postgresql": POSTGRESQL, "mysql": MYSQL}
        return arguments.get(self.kind, {"timeout": WAIT})

    @cached_property
    def engine(self) -> Engine:
        """Connections to the database; InputError if the driver is not installed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            return create_engine(self.url, connect_args=self.connect_args, pool_pre_ping=True)
        except ImportError:
            raise self.missing_driver() from None

    def missing_driver(self) -> InputError:
        """The error for a driver that is not installed."""
        extra = next(extra for name, extra in DRIVERS.values() if name == self.url.drivername)
        return InputError(
            f"{VARIABLE}: the driver {self.url.drivername.partition('+')[2]} is not installed. "
            f"Run `pip install 'mmq[{extra}]'`."
        )

    def run(self, work: Callable[[Connection], T]) -> T:
        """The result of `work` in one transaction, repeated while the database is unavailable.

        The reply to a commit can be lost: work must be safe to repeat.
        """

        def transaction() -> T:
            with signals_deferred(), self.engine.begin() as connection:
                return work(connection)

        return self.retries.retry(transaction)

    def explain(self, message: str) -> StorageError:
        """An error with the database's message, without the password, and what to do."""
        if self.url.password:
            message = message.replace(str(self.url.password), "***")
        message = message.rstrip(".")
        stop = "" if message.endswith("?") else "."  # libpq asks whether the server runs
        matches = (text for words, text in ADVICE.items() if words in message.lower())
        advice = next(matches, "Make it available again")
        return StorageError(
            f"storage {self.address}: {message}{stop} {advice}, then run the same command "
            f"again: it resumes and reuses every completed trial."
        )


def parsed(address: str) -> URL:
    """The URL of a database that several machines can share; InputError for anything else."""
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # its message may contain the password
        raise InputError(EXPECTED) from None
    scheme = url.drivername.partition("+")[0]
    if scheme == "sqlite":
        raise InputError(
            f"{EXPECTED}. SQLite is for one machine; without {VARIABLE}, it is in MMQ_HOME."
        )
    if scheme not in DRIVERS or not url.database or not url.host or "@" in url.host:
        raise InputError(EXPECTED)
    return url.set(drivername=DRIVERS[scheme][0])
