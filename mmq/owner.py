"""Who is working on something: a process, told apart from a later one with the same number."""

import os
import socket
from pathlib import Path

import psutil


def host() -> str:
    """Name of the machine, with its own id where it has one: names are not always unique."""
    path = Path("/etc/machine-id")
    own = path.read_text().strip()[:8] if path.is_file() else ""
    return f"{socket.gethostname()}+{own}" if own else socket.gethostname()


def owner() -> str:
    """The current process as host:pid:start time."""
    return f"{host()}:{os.getpid()}:{_started(os.getpid())}"


def is_here(text: str) -> bool:
    """Whether an owner is a process of this host, running or not."""
    return text.partition(":")[0] == host()


def is_gone(text: str) -> bool:
    """Whether an owner is a process of this host that no longer runs; False for other hosts'."""
    pid, _, started = text.partition(":")[2].partition(":")
    if not is_here(text) or not pid.isdigit():
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # dead, its parent has not looked yet
            return None
        return f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
