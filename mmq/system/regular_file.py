"""Read files of a user or a download: only regular ones, up to a size limit."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mmq.errors import InputError

MIB = 2**20
DEFAULT_LIMIT = 64 * MIB
OTHER_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def other_kind(path: Path) -> str:
    """The kind of a file that is not regular, like "a named pipe"; "" for a regular file.

    Links are followed. OSError if the file is missing or not accessible.
    """
    mode = stat.S_IFMT(path.stat().st_mode)
    return "" if mode == stat.S_IFREG else OTHER_KINDS.get(mode, "not a regular file")


def is_folder(path: Path) -> bool:
    """Whether this is an accessible folder; False for a name that no folder can have."""
    try:
        return path.is_dir()
    except OSError:  # a link in a loop, a name that is too long
        return False


@contextmanager
def open_regular(path: Path, role: str) -> Iterator[BinaryIO]:
    """The file, opened for reading bytes; InputError starting with `role` if it cannot be.

    A pipe, a socket, a device or a folder is refused at once: reading one could hang.
    """
    try:
        kind = other_kind(path)
        # O_NONBLOCK: if a pipe replaced the file meanwhile, do not wait for a writer
        handle = -1 if kind else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise InputError(f"{role}: {path} cannot be read: it does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{role}: {path} cannot be opened ({reason})") from error
    if kind:
        raise InputError(f"{role}: {path} is {kind}; give a regular file")
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InputError(f"{role}: {path} is not a regular file")
        yield file


def read_regular(path: Path, role: str, limit: int = DEFAULT_LIMIT) -> bytes:
    """The bytes of a regular file; InputError if there are more than `limit`."""
    with open_regular(path, role) as file:
        try:
            large = os.fstat(file.fileno()).st_size > limit
            content = b"" if large else file.read(limit + 1)
        except OSError as error:
            raise InputError(f"{role}: {path} cannot be read ({error.strerror})") from error
    if large or len(content) > limit:  # it may have grown, or not report its size
        raise InputError(
            f"{role}: {path} is larger than {limit / MIB:g} MiB, the limit for such files"
        )
    return content


def read_text(path: Path, role: str, limit: int = DEFAULT_LIMIT) -> str:
    """A file's text without a byte order mark; InputError names the line that is not UTF-8."""
    content = read_regular(path, role, limit)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise not_utf8(path, role, line, content[:2]) from error


def not_utf8(path: Path, role: str, line: int, start: bytes) -> InputError:
    """The error for a text file in another encoding; start: its first bytes."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return InputError(f"{role}: {path} is UTF-16 text; save it as UTF-8")
    return InputError(f"{role}: {path}: line {line} is not UTF-8 text; save the file as UTF-8")
