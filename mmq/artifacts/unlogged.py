"""Files of runs that wait to be logged, and of those that could not be.

unlogged/RUN@OWNER    whole, sealed, waiting for MLflow
unlogged/unfinished/  being written
unlogged/stuck/RUN    set aside: MLflow refuses them, or they are damaged; reason.txt says why
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mmq.system import checksums
from mmq.system.atomic import ABANDONED, has_writer, sync
from mmq.system.disk import naming
from mmq.system.home import home
from mmq.system.process import is_gone, owner

log = logging.getLogger(__name__)
REASON = "reason.txt"
PART = ".part"
STUCK = "stuck"


def root() -> Path:
    """The folder of all that is not logged yet."""
    return home() / "unlogged"


def staged(run_id: str) -> Path:
    """The folder in which this process keeps a run's files until they are logged."""
    return root() / f"{run_id}@{owner()}"


@contextmanager
def staging(run_id: str) -> Iterator[Path]:
    """A folder to write a run's files into; it is staged when the block ends, whole and sealed."""
    root().mkdir(parents=True, exist_ok=True)
    _sweep()
    aside = root() / f"{os.getpid()}-{run_id}{PART}"
    _discard(aside)
    try:
        with naming(aside):
            aside.mkdir()
            yield aside
            checksums.seal_folder(aside, run_id)
            _discard(staged(run_id))
            aside.rename(staged(run_id))
            sync(root())
    finally:
        _discard(aside)


def _sweep() -> None:
    """Remove what killed processes left half written, an hour after they did."""
    for old in root().glob(f"*{PART}"):
        with suppress(OSError):  # another process was quicker
            if time.time() - old.lstat().st_mtime > ABANDONED and not has_writer(old.name):
                _discard(old)


def is_staged(run_id: str) -> bool:
    """Whether a run has files, of whichever process, that were not logged yet."""
    return any(root().glob(f"{run_id}@*"))


def unstage(run_id: str) -> None:
    """The run's files are logged."""
    _discard(staged(run_id))


def left() -> Iterator[tuple[str, Path]]:
    """Runs and their staged files that are this process's, or from now on are: theirs died."""
    for path in sorted(root().glob("*@*")):
        run_id, _, who = path.name.partition("@")
        if who != owner():
            if not is_gone(who):
                continue
            try:
                path.rename(staged(run_id))
            except OSError as error:  # another process was quicker, or this one has it already
                log.debug("%s was not taken over: %s", path, error)
                continue
        yield run_id, staged(run_id)


@dataclass(frozen=True, slots=True)
class Stuck:
    """A run's files that were set aside."""

    run_id: str
    path: Path
    reason: str


def set_aside(run_id: str, reason: str) -> None:
    """Take a run's files out of the way of all others, with a warning that names them."""
    path, place = staged(run_id), root() / STUCK / run_id
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() or place.is_symlink():  # of an earlier attempt
        place = place.with_name(f"{run_id}.{time.time_ns()}")
    with suppress(FileNotFoundError):  # another process has set it aside
        path.rename(place)
        place.with_name(f"{place.name}.{REASON}").write_text(reason)
        log.warning(
            "The run %s could not be logged and is set aside in %s: %s. `mmq store stuck` lists "
            "such runs, tries them again or removes them.",
            run_id, place, reason,
        )  # fmt: skip


def stuck() -> list[Stuck]:
    """All that was set aside."""
    found = []
    for path in sorted((root() / STUCK).glob("*")):
        if path.name.endswith(f".{REASON}"):
            continue
        reason = path.with_name(f"{path.name}.{REASON}")
        text = "unknown reason"
        with suppress(OSError, ValueError):
            text = reason.read_text()
        found.append(Stuck(path.name.partition(".")[0], path, text))
    return found


def waiting() -> list[tuple[str, Path]]:
    """Runs and their files, of whichever process, that wait to be logged."""
    return [(path.name.partition("@")[0], path) for path in sorted(root().glob("*@*"))]


def try_again(each: Stuck) -> None:
    """Put a run's files back among those that the next command logs."""
    _discard(each.path.with_name(f"{each.path.name}.{REASON}"))
    each.path.rename(staged(each.run_id))


def drop(each: Stuck) -> None:
    """Remove a run's files for good."""
    _discard(each.path.with_name(f"{each.path.name}.{REASON}"))
    _discard(each.path)


def summary() -> str:
    """One line about runs that wait or are stuck; "" without any."""
    kinds = ((len(waiting()), "wait to be logged"), (len(stuck()), "could not be logged"))
    text = ", ".join(f"{count} {what}" for count, what in kinds if count)
    return f"Runs: {text}; see `mmq store stuck`." if text else ""


def _discard(path: Path) -> None:
    """Remove a folder, or a file in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
