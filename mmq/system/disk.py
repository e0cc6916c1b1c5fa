"""What a disk refuses, in a sentence: full, read-only, not allowed, a file for a folder."""

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
    errno.ENOTDIR: "a file stands where a folder should be",
    errno.EEXIST: "a file stands where a folder should be",
    errno.EISDIR: "a folder stands where a file should be",
    errno.ENOTEMPTY: "a folder stands where a file should be",
    errno.ELOOP: "a symbolic link leads back to itself",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.EIO: "the disk reports an input/output error",
    errno.EMFILE: "too many files are open (see ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ESTALE: "the network file system lost the file",
    errno.ENOTCONN: "the network file system is not connected",
    errno.EHOSTDOWN: "the network file system is not reachable",
}
SAID = {  # by databases and libraries that do not pass the number on
    r"database or disk is full": errno.ENOSPC,
    r"attempt to write a readonly database": errno.EROFS,
    r"unable to open database file": errno.EACCES,
    r"disk I/O error": errno.EIO,
    r"No space left on device": errno.ENOSPC,
    r"Disk quota exceeded": errno.EDQUOT,
    r"Read-only file system": errno.EROFS,
}
MIB = 2**20
LITTLE = 16 * MIB  # less than this is as good as full
PROBE = 64 * 1024  # bytes


def trouble(error: BaseException) -> OSError | None:
    """The disk's refusal behind an error, its number known; None for another error."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.errno in REASONS:
            return cause
        if not isinstance(cause, OSError) and (number := _number(str(cause))) is not None:
            return OSError(number, os.strerror(number))
        handled = None if cause.__suppress_context__ else cause.__context__
        cause = cause.__cause__ or handled
    return None


def _number(text: str) -> int | None:
    """The error number that a library's message tells of."""
    if (found := re.search(r"\(os error (\d+)\)", text)) and int(found[1]) in REASONS:
        return int(found[1])
    return next((number for said, number in SAID.items() if re.search(said, text)), None)


def sentence(error: BaseException, *folders: Path) -> str | None:
    """What the disk refused and what to do about it; None for an error of another kind.

    folders: where to look for the disk if the error does not name a file.
    """
    refused = trouble(error)
    if refused is None or refused.errno is None:
        return None
    reason = REASONS[refused.errno]
    path = None if refused.filename is None else Path(os.fsdecode(refused.filename))
    if refused.errno in FULL:
        return (
            f"{_full(reason, path, refused, folders)} Completed work is saved: free some "
            f"space, or set MMQ_HOME or TMPDIR to another disk, and run the command again."
        )
    if path is None:
        refusing = [str(place) for place in folders if not os.access(place, os.W_OK)]
        shown = ", ".join(refusing) or _first_line(error)
        return f"{reason} ({shown}). Correct it and run the command again."
    elsewhere = ", or set MMQ_HOME to another folder" if path.is_relative_to(home()) else ""
    return f"{path}: {reason}. Correct it{elsewhere}, and run the command again."


def _full(reason: str, path: Path | None, refused: OSError, folders: tuple[Path, ...]) -> str:
    if path is not None:
        needed = getattr(refused, "needed", None)
        more = "" if needed is None else f", {in_mib(needed)} needed"
        return f"{path}: {reason} ({free_text(path)}{more})."
    low = [place for place in folders if free(place) < LITTLE]
    shown = "; ".join(f"{place}: {free_text(place)}" for place in low or folders)
    return f"{reason[0].upper()}{reason[1:]} on a disk ({shown})."


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def in_mib(size: float) -> str:
    """A size for people."""
    return f"{size / MIB:.1f} MiB"


def free(path: Path) -> float:
    """Bytes that may still be written where a path is, or would be; inf where unknown."""
    for place in (path, *path.parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return float("inf")


def free_text(path: Path) -> str:
    """How much is free, in words."""
    size = free(path)
    return "free space unknown" if size == float("inf") else f"{in_mib(size)} free"


def places() -> tuple[Path, ...]:
    """Folders that a command writes into."""
    found = [home(), Path.cwd()]
    store = os.environ.get("MLFLOW_TRACKING_URI", "")
    if store.startswith("sqlite:///"):
        found.append(Path(store.removeprefix("sqlite:///")).parent)
    with suppress(OSError):  # no folder for temporary files can be written
        found.append(Path(tempfile.gettempdir()))
    return tuple(dict.fromkeys(found))


@contextmanager
def naming(path: Path, needed: int | None = None) -> Iterator[None]:
    """Let a refusal of the disk within the block name this file and the bytes it needed."""
    try:
        yield
    except Exception as error:
        refused = error if isinstance(error, OSError) else trouble(error)
        if refused is None or refused.filename is not None or refused.errno is None:
            raise
        named = OSError(refused.errno, refused.strerror, str(path))
        named.needed = needed  # type: ignore[attr-defined]
        raise named from error


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of the bytes: an almost full disk takes a part of them without an error."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def check_writable(folder: Path) -> None:
    """InputError where a folder cannot be made or takes no file: before expensive work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with naming(folder, PROBE), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            write_all(file, bytes(PROBE))
            os.fsync(file.fileno())
    except OSError as error:
        text = sentence(error, folder)
        raise InputError(text or f"{folder}: {error}") from error
