"""Who is working on something: a process, told apart from a later one with the same number.

No clock is asked: start times that are derived from it move when it is set. Where there is /proc,
a process is known by its ticks since the boot, and the boot by its own id.
"""

import os
import re
import socket
from functools import cache
from pathlib import Path

import psutil

FIRST_NAMESPACE = "4026531836"  # of processes, as Linux numbers the one that all machines have
TOLERANCE = 2.0  # seconds that two looks at one start time may differ by
PROC = Path("/proc")


def host() -> str:
    """Name of the machine, with its own id where it has one: names are not always unique.

    In a container it is the container's: process numbers of another one mean nothing here.
    """
    path = Path("/etc/machine-id")
    own = _text(path)[:8]
    return "+".join([socket.gethostname(), *filter(None, [own, _container()])])


def owner() -> str:
    """The current process as host:pid:start."""
    return f"{host()}:{os.getpid()}:{_started(os.getpid())}"


def is_here(text: str) -> bool:
    """Whether an owner is a process of this host, running or not, so that `is_gone` can tell."""
    pid, started = _here(text)
    return pid is not None and not (_by_clock(started) and _exists(pid))


def is_gone(text: str) -> bool:
    """Whether an owner is a process of this host that no longer runs; False where in doubt."""
    pid, started = _here(text)
    if pid is None:
        return False
    if not _exists(pid):
        return True
    if _by_clock(started):  # of an earlier mmq: the clock may have been set since
        return not _may_be_mmq(pid)
    now = _started(pid)
    if now is None:
        return False
    if "-" in now:
        return now != started
    return abs(float(now) - _number(started)) > TOLERANCE


def _here(text: str) -> tuple[int | None, str]:
    """Number and start of an owner of this host; None for those of other hosts."""
    where, _, rest = text.partition(":")
    pid, _, started = rest.partition(":")
    known = where == host() and pid.isascii() and pid.isdigit()
    return (int(pid) if known else None), started


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _by_clock(started: str) -> bool:
    """Whether a start is a time of the clock, while this system has better."""
    return "-" not in started and "-" in (_started(os.getpid()) or "")


@cache
def _boot() -> str:
    """The boot's own id; "" where the system has none."""
    return _text(PROC / "sys/kernel/random/boot_id")[:8]


def _container() -> str:
    """What tells a container from its host and from others; "" outside of containers."""
    try:
        found = re.search(r"\d+", os.readlink("/proc/self/ns/pid"))
    except OSError:
        return ""
    if found is None or found[0] == FIRST_NAMESPACE:
        return ""
    return f"{_boot()}.{found[0]}"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on; None where they cannot be read."""
    try:
        # the second one, the name, may hold anything, brackets too
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _exists(pid: int) -> bool:
    """Whether a process runs; a zombie does not: its parent has not looked yet."""
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
