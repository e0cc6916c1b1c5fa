"""Identify a process, even if a later one reuses its number.

The clock is not used: start times derived from it move when it is set. Where there is /proc, a
process is identified by its start in ticks since boot, and the boot by its own id.
"""

import os
import re
import socket
from functools import cache
from pathlib import Path

import psutil

FIRST_NAMESPACE = "4026531836"  # Linux's number of the initial PID namespace
TOLERANCE = 2.0  # seconds by which two readings of one start time may differ
PROC = Path("/proc")


def host() -> str:
    """Name of the machine, with its id if it has one: names are not always unique.

    In a container, the container's: process numbers of another container mean nothing here.
    """
    path = Path("/etc/machine-id")
    machine_id = _text(path)[:8]
    return "+".join([socket.gethostname(), *filter(None, [machine_id, _container()])])


def owner() -> str:
    """The current process as host:pid:start."""
    return f"{host()}:{os.getpid()}:{_started(os.getpid())}"


def is_here(text: str) -> bool:
    """Whether an owner is a process of this host that `is_gone` can check, running or not."""
    pid, started = _here(text)
    return pid is not None and not (_by_clock(started) and _exists(pid))


def is_gone(text: str) -> bool:
    """Whether an owner is a process of this host that no longer runs; False if unsure."""
    pid, started = _here(text)
    if pid is None:
        return False
    if not _exists(pid):
        return True
    if _by_clock(started):  # written by an earlier mmq; the clock may have been set since
        return not _may_be_mmq(pid)
    now = _started(pid)
    if now is None:
        return False
    if "-" in now:
        return now != started
    return abs(float(now) - _number(started)) > TOLERANCE


def _here(text: str) -> tuple[int | None, str]:
    """PID and start of an owner on this host; the PID is None for other hosts."""
    where, _, rest = text.partition(":")
    pid, _, started = rest.partition(":")
    is_local = where == host() and pid.isascii() and pid.isdigit()
    return (int(pid) if is_local else None), started


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _by_clock(started: str) -> bool:
    """Whether a start is a clock time although this system offers ticks."""
    return "-" not in started and "-" in (_started(os.getpid()) or "")


@cache
def _boot() -> str:
    """The id of this boot; "" if the system has none."""
    return _text(PROC / "sys/kernel/random/boot_id")[:8]


def _container() -> str:
    """An id that distinguishes containers and their host; "" outside containers."""
    try:
        namespace = re.search(r"\d+", os.readlink("/proc/self/ns/pid"))
    except OSError:
        return ""
    if namespace is None or namespace[0] == FIRST_NAMESPACE:
        return ""
    return f"{_boot()}.{namespace[0]}"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on; None if they cannot be read."""
    try:
        # the second field, the name, may contain brackets
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _exists(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    fields = _stat(pid)
    if fields:
        return fields[0] not in ("Z", "X", "x")
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's, hidden
        return True
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _started(pid: int) -> str | None:
    """When a process began: BOOT-TICKS, or by the clock where there is no /proc; None: hidden."""
    fields = _stat(pid)
    if fields:
        return f"{_boot()}-{fields[19]}"
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None


def _may_be_mmq(pid: int) -> bool:
    try:
        words = " ".join([psutil.Process(pid).name(), *psutil.Process(pid).cmdline()])
    except psutil.Error:
        return True
    return "mmq" in words or "python" in words.lower()
