"""Files that are there whole or not at all, whatever dies while they are written."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = "unfinished"  # the folder, beside the files, in which they are written
ABANDONED = 3600  # seconds after which a half-written file has no writer any more


@contextmanager
def whole(path: Path, durable: bool = True) -> Iterator[Path]:
    """Where to write what shall be at `path`: it gets there when the block has ended well.

    durable: it is on the disk by then, so that a power cut leaves no other one. Missing folders
    are made. What killed processes left behind is removed after an hour.
    """
    folder = path.parent / UNFINISHED
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        with suppress(FileNotFoundError):  # somebody else was quicker
            if time.time() - old.stat().st_mtime > ABANDONED:
                old.unlink()
    aside = folder / f"{os.getpid()}-{threading.get_ident()}-{path.name}"
    try:
        yield aside
        if durable:
            with aside.open("rb") as file:
                os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
