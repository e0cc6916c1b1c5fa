"""Disk errors as one sentence each: full, read-only, permission denied, and so on."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from mmq.errors import InputError
from mmq.system.home import home

FULL = (errno.ENOSPC, errno.EDQUOT)
REASONS = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "the operation is not permitted",
    errno.ENOTDIR: "there is a file in place of a folder",
    errno.EEXIST: "there is a file in place of a folder",
    errno.EISDIR: "there is a folder in place of a file",
    errno.ENOTEMPTY: "there is a folder in place of a file",
    errno.ELOOP: "a symbolic link leads back to itself",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.EIO: "the disk reports an input/output error",
    errno.EMFILE: "too many files are open (see ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ESTALE: "the network file system lost the file",
    errno.ENOTCONN: "the network file system is not connected",
    errno.EHOSTDOWN: "the network file system is not reachable",
}
MESSAGES = {  # of databases and libraries that drop the error number
    r"database or disk is full": errno.ENOSPC,
    r"attempt to write a readonly database": errno.EROFS,
    r"unable to open database file": errno.EACCES,
    r"disk I/O error": errno.EIO,
    r"No space left on device": errno.ENOSPC,
    r"Disk quota exceeded": errno.EDQUOT,
    r"Read-only file system": errno.EROFS,
}
MIB = 2**20
GIB = 2**30
BITS_PER_GIB = 8 * GIB
LOW_SPACE = 16 * MIB  # bytes: less than this counts as full
PROBE = 64 * 1024  # bytes


def trouble(error: BaseException) -> OSError | None:
    """The disk error behind an exception, with its errno; None for any other exception."""
    visited: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in visited:
        visited.add(id(cause))
        if isinstance(cause, OSError) and cause.errno in REASONS:
            return cause
        if not isinstance(cause, OSError) and (number := _number(str(cause))) is not None:
            return OSError(number, os.strerror(number))
        handled = None if cause.__suppress_context__ else cause.__context__
        cause = cause.__cause__ or handled
    return None


def _number(text: str) -> int | None:
    """The errno that a library's message implies."""
    if (match := re.search(r"\(os error (\d+)\)", text)) and int(match[1]) in REASONS:
        return int(match[1])
    return next((number for pattern, number in MESSAGES.items() if re.search(pattern, text)), None)


def sentence(error: BaseException, *folders: Path) -> str | None:
    """What failed on disk and what to do about it; None for an error of another kind.

    folders: candidates to report if the error names no file.
    """
    failure = trouble(error)
    if failure is None or failure.errno is None:
        return None
    reason = REASONS[failure.errno]
    path = None if failure.filename is None else Path(os.fsdecode(failure.filename))
    if failure.errno in FULL:
        return (
            f"{_full(reason, path, failure, folders)} Completed work is saved: free some "
            f"space, or set MMQ_HOME or TMPDIR to another disk, and run the command again."
        )
    if path is None:
        unwritable = [str(place) for place in folders if not os.access(place, os.W_OK)]
        where = ", ".join(unwritable) or _first_line(error)
        return f"{reason} ({where}). Fix it and run the command again."
    elsewhere = ", or set MMQ_HOME to another folder" if path.is_relative_to(home()) else ""
    return f"{path}: {reason}. Fix it{elsewhere}, and run the command again."


def _full(reason: str, path: Path | None, failure: OSError, folders: tuple[Path, ...]) -> str:
    if path is not None:
        needed = getattr(failure, "needed", None)
        more = "" if needed is None else f", {in_mib(needed)} needed"
        return f"{path}: {reason} ({free_text(path)}{more})."
    low = [place for place in folders if free(place) < LOW_SPACE]
    where = "; ".join(f"{place}: {free_text(place)}" for place in low or folders)
    return f"{reason[0].upper()}{reason[1:]} on a disk ({where})."


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def in_mib(size: float) -> str:
    """A size in MiB, for messages."""
    return f"{size / MIB:.1f} MiB"


def free(path: Path) -> float:
    """Free bytes on the disk of a path that may not exist yet; inf if unknown."""
    for place in (path, *path.parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return float("inf")


def free_text(path: Path) -> str:
    """The free space, for messages."""
    size = free(path)
    return "free space unknown" if size == float("inf") else f"{in_mib(size)} free"


def places() -> tuple[Path, ...]:
    """Folders that a command writes into."""
    folders = [home(), Path.cwd()]
    store = os.environ.get("MLFLOW_TRACKING_URI", "")
    if store.startswith("sqlite:///"):
        folders.append(Path(store.removeprefix("sqlite:///")).parent)
    with suppress(OSError):  # there is no writable temporary folder
        folders.append(Path(tempfile.gettempdir()))
    return tuple(dict.fromkeys(folders))


@contextmanager
def naming(path: Path, needed: int | None = None) -> Iterator[None]:
    """Add this file and the bytes it needed to a disk error inside the block."""
    try:
        yield
    except Exception as error:
        failure = error if isinstance(error, OSError) else trouble(error)
        if failure is None or failure.filename is not None or failure.errno is None:
            raise
        with_name = OSError(failure.errno, failure.strerror, str(path))
        with_name.needed = needed  # type: ignore[attr-defined]
        raise with_name from error


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write all bytes: an almost full disk accepts some of them without an error."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def check_writable(folder: Path) -> None:
    """InputError if a folder cannot be created or written to; call it before expensive work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with naming(folder, PROBE), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            write_all(file, bytes(PROBE))
            os.fsync(file.fileno())
    except OSError as error:
        text = sentence(error, folder)
        raise InputError(text or f"{folder}: {error}") from error
