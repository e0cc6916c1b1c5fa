"""What makes a test give the same result on every machine, in every order and at any load."""

import itertools
import os
import random
import socket
import sqlite3
from contextlib import suppress

import numpy as np
from hypothesis import HealthCheck, settings
from sqlalchemy import event
from sqlalchemy.engine import Engine

FIRST_PORT, PORTS = 10_000, 2_000  # below those that systems give to outgoing connections
_ports = itertools.count(os.getpid())


def without_waiting_for_the_disk() -> None:
    """SQLite's writes of this process survive its death, as always, but no power failure.

    A commit waits for the disk, which takes seconds on a machine whose disk is busy.
    """
    event.listen(Engine, "connect", _do_not_wait)


def _do_not_wait(connection: object, record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        with suppress(sqlite3.Error):  # a damaged file, which the test is about
            connection.execute("pragma synchronous = off")


def with_the_same_examples() -> None:
    """Hypothesis tries the same examples in every run, however slowly they are generated."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings.register_profile(
        "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=slow
    )
    settings.load_profile("repeatable")


def seed() -> None:
    """Start all generators of random numbers anew: tests before this one do not matter."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def free_port() -> int:
    """A port on which nothing listens, and that no other process is given by chance.

    A server needs seconds until it listens. The system gives a port of its own choice to another
    process in that time. Two test workers choose from different ports.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = FIRST_PORT + PORTS * (int(worker) % 8)
    for number in _ports:
        port = first + number % PORTS
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
