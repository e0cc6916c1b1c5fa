"""Who is working on something: a process, told apart from a later one with the same number."""

import os
import socket

import psutil


def owner() -> str:
    """The current process as host:pid:start time."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(text: str) -> bool:
    """Whether an owner is a process of this host that no longer runs; False for other hosts'."""
    host, _, rest = text.partition(":")
    pid, _, started = rest.partition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str | None:
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
