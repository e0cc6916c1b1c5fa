"""Files that are there whole or not at all, whatever dies while they are written."""

import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from mmq.system.disk import naming

log = logging.getLogger(__name__)
UNFINISHED = "unfinished"  # the folder, beside the files, in which they are written
ABANDONED = 3600  # seconds after which a half-written file has no writer any more
ASIDE = "set-aside"  # ending of a folder that stood in a file's place


@contextmanager
def whole(path: Path, durable: bool = True) -> Iterator[Path]:
    """Where to write what shall be at `path`: it gets there when the block has ended well.

    durable: it is on the disk by then, so that a power cut leaves no other one. Missing folders
    are made. What killed processes left behind is removed after an hour. An OSError names `path`.
    """
    folder = path.parent / UNFINISHED
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    aside = folder / f"{os.getpid()}-{threading.get_ident()}-{path.name}"
    try:
        with naming(path):
            yield aside
            if durable:
                sync(aside)
            _put(aside, path)
            if durable:
                sync(path.parent)
    finally:
        with suppress(OSError):  # it cannot be had away: what went wrong before counts
            aside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # folders of some network disks
            raise
    finally:
        os.close(number)


def _put(aside: Path, path: Path) -> None:
    """Put a file in its place; a folder that stands there is set aside, not removed."""
    try:
        aside.replace(path)
    except (IsADirectoryError, FileExistsError, OSError) as error:
        if not path.is_dir() or path.is_symlink():
            raise
        other = path.with_name(f"{path.name}.{time.time_ns()}.{ASIDE}")
        path.rename(other)
        log.warning("%s was a folder and is now %s (%s)", path, other.name, error.strerror)
        aside.replace(path)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written, an hour after they did."""
    for old in folder.iterdir():
        # also where somebody else was quicker, or it is a folder: it harms nobody
        with suppress(OSError):
            if time.time() - old.lstat().st_mtime > ABANDONED and not has_writer(old.name):
                old.unlink()


def has_writer(name: str) -> bool:
    """Whether the process that began a file runs on this machine: clocks may be set."""
    pid = name.partition("-")[0]
    return pid.isdigit() and len(pid) < 10 and psutil.pid_exists(int(pid))
