"""Atomic writes: a file is complete or absent, even if its writer is killed."""

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
UNFINISHED = "unfinished"  # folder beside the files in which they are written
ABANDONED = 3600  # age in seconds from which a half-written file counts as abandoned
ASIDE = "set-aside"  # suffix of a folder that was in a file's place


@contextmanager
def atomic_write(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path; the file written there replaces `path` when the block succeeds.

    durable: flush to disk first, so that a power cut leaves a complete file. Creates missing
    folders, removes files that killed processes left over an hour ago, and names `path` in every
    OSError.
    """
    folder = path.parent / UNFINISHED
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    temporary = folder / f"{os.getpid()}-{threading.get_ident()}-{path.name}"
    try:
        with naming(path):
            yield temporary
            if durable:
                sync(temporary)
            _put(temporary, path)
            if durable:
                sync(path.parent)
    finally:
        with suppress(OSError):  # an error inside the block matters more
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.EBADF,
        ):  # some network disks cannot flush folders
            raise
    finally:
        os.close(descriptor)


def _put(temporary: Path, path: Path) -> None:
    """Move a file into place; a folder with its name is renamed, not removed."""
    try:
        temporary.replace(path)
    except (IsADirectoryError, FileExistsError, OSError) as error:
        if not path.is_dir() or path.is_symlink():
            raise
        renamed = path.with_name(f"{path.name}.{time.time_ns()}.{ASIDE}")
        path.rename(renamed)
        log.warning("%s was a folder and is now %s (%s)", path, renamed.name, error.strerror)
        temporary.replace(path)


def sweep(folder: Path) -> None:
    """Remove half-written files of killed processes after an hour."""
    for path in folder.iterdir():
        # another process may have removed it, or it is a folder: both are harmless
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > ABANDONED and not has_writer(path.name):
                path.unlink()


def has_writer(name: str) -> bool:
    """Whether the process that started a file still runs; file times alone can be wrong."""
    pid = name.partition("-")[0]
    return pid.isdigit() and len(pid) < 10 and psutil.pid_exists(int(pid))
